/* What is asked of the server. The key is behind the # of the page's address, where no request carries it. */

/** An answer that is no answer: `status` is HTTP's, or 0 where nobody answered. */
export class Failure extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function ask(path, options = {}) {
  const headers = { Authorization: `Bearer ${location.hash.slice(1)}`, ...options.headers };
  let answer;
  try {
    answer = await fetch(path, { ...options, headers, cache: "no-store" });
  } catch {
    throw new Failure(0, "no answer");
  }
  const told = await answer.json().catch(() => null);
  if (!answer.ok || told === null) throw new Failure(answer.status, told?.error?.message ?? `the server said ${answer.status}`);
  return told;
}

/** What is to be shown; curves and samples are left out where `seen` is still their version. */
export const news = (seen) => ask(`/live/news?seen=${encodeURIComponent(seen)}`);

/** Tells the run "pause", "go_on" or "stop". */
export const tell = (wish) => ask("/live/wish", {
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify({ wish }),
});
