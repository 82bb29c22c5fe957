/* Server-sent events out of a stream of bytes: the data of each, as text.
 *
 * Knows nothing of what the data says. EventSource would do this too, but it sends no body and no key.
 */

/** The `data` of each event, in order; comments and other fields are skipped. An event that was not ended is dropped. */
export async function* eventData(bytes) {
  const reader = bytes.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  let data = [];
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      rest += decoder.decode(value, { stream: true });
      const lines = rest.split("\n");
      rest = lines.pop();
      for (const ended of lines) {
        const line = ended.endsWith("\r") ? ended.slice(0, -1) : ended;
        if (line === "") {
          if (data.length) yield data.join("\n");
          data = [];
        } else if (line.startsWith("data:")) {
          data.push(line.slice(line[5] === " " ? 6 : 5));
        }
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // tells the server that nobody reads on; a stream that has ended has nothing to cancel
  }
}
