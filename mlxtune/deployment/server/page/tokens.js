/* Which characters of an answer belong to which token.
 *
 * A character may be spread over several tokens, whose texts are then not readable each: bytes decide, and the character
 * belongs to the token that completes it. Tokens after the end of the text (a stop text, say) are left out.
 */

const ENCODER = new TextEncoder();

/** The bytes of a token. Where only its text came, a part of a character is spelled in it as `\xe2`. */
function bytesOf(token) {
  if (token.bytes) return Uint8Array.from(token.bytes);
  const parts = token.text.split(/(\\x[89a-f][0-9a-f])/);
  return Uint8Array.from(parts.flatMap((part, i) => (i % 2 ? [Number.parseInt(part.slice(2), 16)] : [...ENCODER.encode(part)])));
}

/** `[{start, end, token}]`, in order and without gaps, over all of `text`; null if the tokens do not make up this text. */
export function tokenRanges(text, tokens) {
  if (!tokens?.length) return null;
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  const ranges = [];
  let joined = "";
  for (const token of tokens) {
    const start = joined.length;
    joined += decoder.decode(bytesOf(token), { stream: true });
    if (start >= text.length) break;
    ranges.push({ start, end: Math.min(joined.length, text.length), token });
  }
  return joined.startsWith(text) ? ranges : null;
}

/** How sure the network was of a token: 0 for sure, to 3 for a token that it drew against the odds. */
export function doubt(logprob) {
  const probability = Math.exp(logprob);
  return [0.9, 0.5, 0.2].filter((bound) => probability < bound).length;
}

export function percent(logprob) {
  const share = 100 * Math.exp(logprob);
  return share < 0.1 ? "below 0.1 %" : `${share.toFixed(1)} %`;
}
