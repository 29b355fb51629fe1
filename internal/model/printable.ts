/**
 * What scripts, names and other people's servers say may hold anything. On a terminal some of it
 * would be obeyed: control characters (C0, C1) move the cursor, write to the clipboard, answer in the
 * user's name; marks of direction show a text in another order than it has.
 */
const OBEYED = /(?![\t\n])[\p{Cc}\p{Bidi_Control}]/gu;

/** Text for people: line ends and tabs stay, what could drive a terminal is shown as a mark. */
export function printable(text: string): string {
  return text.replace(OBEYED, "\ufffd");
}

/** The same in JSON, which says the same as before. */
export function printableJson(json: string): string {
  return json.replace(OBEYED, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`);
}
