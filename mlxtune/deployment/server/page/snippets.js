/* The request that would be sent next, as a command for curl and as a program in Python.
 *
 * Never the key: both read it from the environment.
 */

const VARIABLE = "MLXTUNE_API_KEY";

/** The text as one word of a POSIX shell. */
function shellQuoted(text) {
  return `'${text.replaceAll("'", String.raw`'\''`)}'`;
}

/** A command line for a POSIX shell. */
export function asCurl({ path, body }, origin, keyNeeded) {
  return [
    `curl -sS ${shellQuoted(origin + path)}`,
    `  -H 'Content-Type: application/json'`,
    ...(keyNeeded ? [`  -H "Authorization: Bearer $${VARIABLE}"`] : []),
    `  -d ${shellQuoted(JSON.stringify(body, null, 2))}`,
  ].join(" \\\n") + "\n";
}

/** A value of JSON as Python writes it. A string of JSON is one of Python's too. */
function pythonLiteral(value, indent) {
  const inner = `${indent}    `;
  const lines = (parts, open, close) => parts.length ? `${open}\n${parts.map((part) => `${inner}${part},\n`).join("")}${indent}${close}` : open + close;
  if (value === null) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (Array.isArray(value)) return lines(value.map((one) => pythonLiteral(one, inner)), "[", "]");
  if (typeof value === "object") {
    return lines(Object.entries(value).map(([name, one]) => `${JSON.stringify(name)}: ${pythonLiteral(one, inner)}`), "{", "}");
  }
  return JSON.stringify(value);
}

/** OpenAI's client knows no top_k and no min_p; they go along as what it calls extra. */
const EXTRA = ["top_k", "min_p"];

/** A program that needs the package openai. */
export function asPython({ path, body }, origin, keyNeeded) {
  const chat = path.includes("chat");
  const own = Object.entries(body).filter(([name]) => !EXTRA.includes(name));
  const extra = Object.entries(body).filter(([name]) => EXTRA.includes(name));
  const given = own.map(([name, value]) => `    ${name}=${pythonLiteral(value, "    ")},\n`);
  if (extra.length) given.push(`    extra_body=${pythonLiteral(Object.fromEntries(extra), "    ")},\n`);
  return [
    ...(keyNeeded ? ["import os\n"] : []),
    "from openai import OpenAI\n",
    `client = OpenAI(base_url=${JSON.stringify(`${origin}/v1`)}, api_key=${keyNeeded ? `os.environ["${VARIABLE}"]` : '"none"'})`,
    `answer = client.${chat ? "chat.completions" : "completions"}.create(\n${given.join("")})`,
    `print(answer.choices[0].${chat ? "message.content" : "text"})`,
  ].join("\n") + "\n";
}
