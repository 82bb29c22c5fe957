/* Numbers as people read them. */

const whole = new Intl.NumberFormat("en");

/** 12,345 */
export const count = (value) => whole.format(Math.round(value));

/** Four digits, or the exponent of what is very small or large: 0.4312, 2.00e-4. */
export function figure(value) {
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(2);
  return String(Number(value.toPrecision(4)));
}

/** 1.25 GB, 640 MB */
export function memory(bytes) {
  const [size, unit] = bytes >= 1e9 ? [1e9, "GB"] : [1e6, "MB"];
  return `${Number((bytes / size).toPrecision(3))} ${unit}`;
}

/** 40 s, 5 min, 2 h 5 min, 3 d 4 h */
export function duration(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 90) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/** A moment in the reader's own time, or "" for none. */
export function moment(iso) {
  const time = new Date(iso ?? NaN);
  return Number.isNaN(time.getTime()) ? "" : time.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}
