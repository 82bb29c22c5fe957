/* Where two answers differ: the words that one has and the other has not, in order.
 *
 * The longest common subsequence of words and signs; white space does not count. Its price is time and memory by the
 * product of both lengths, so beyond a limit nothing but the common beginning and end is found.
 */

const LIMIT = 4_000_000;

function words(text) {
  return [...text.matchAll(/[\p{L}\p{N}\p{M}_]+|[^\s]/gu)].map((match) => ({
    word: match[0], start: match.index, end: match.index + match[0].length,
  }));
}

/** Marks in `a` and in `b` what the other has not, between the common beginning and end. */
function middle(a, b) {
  if (a.length * b.length > LIMIT) return [a.map(() => true), b.map(() => true)];
  const width = b.length + 1;
  const longest = new Uint32Array((a.length + 1) * width); // of what is left from place i of a and j of b on
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      longest[i * width + j] = a[i].word === b[j].word
        ? longest[(i + 1) * width + j + 1] + 1
        : Math.max(longest[(i + 1) * width + j], longest[i * width + j + 1]);
    }
  }
  const own = [a.map(() => true), b.map(() => true)];
  for (let i = 0, j = 0; i < a.length && j < b.length;) {
    if (a[i].word === b[j].word) {
      own[0][i++] = own[1][j++] = false;
    } else if (longest[(i + 1) * width + j] >= longest[i * width + j + 1]) {
      i++;
    } else {
      j++;
    }
  }
  return own;
}

/** Neighbouring words of one's own are one stretch, with what stands between them. */
function stretches(found, own) {
  const ranges = [];
  found.forEach(({ start, end }, i) => {
    if (!own[i]) return;
    if (i > 0 && own[i - 1]) ranges.at(-1).end = end;
    else ranges.push({ start, end });
  });
  return ranges;
}

/** `[of left, of right]`, each `[{start, end}]`: what the other does not say. */
export function differences(left, right) {
  const both = [words(left), words(right)];
  const shorter = Math.min(both[0].length, both[1].length);
  let head = 0;
  while (head < shorter && both[0][head].word === both[1][head].word) head++;
  let tail = 0;
  while (tail < shorter - head && both[0].at(-1 - tail).word === both[1].at(-1 - tail).word) tail++;
  const cut = both.map((all) => all.slice(head, all.length - tail));
  const own = middle(...cut);
  return [stretches(cut[0], own[0]), stretches(cut[1], own[1])];
}
