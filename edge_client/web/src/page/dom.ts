/** The page's elements, and numbers as people read them. */

export function element<T extends HTMLElement = HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (!found) throw new Error(`no element #${id}`);
  return found as T;
}

export function show(id: string, shown: boolean): void {
  element(id).hidden = !shown;
}

/** Put a text in, only where it is another: a screen reader says what changes. */
export function say(id: string, text: string | null): void {
  const found = element(id);
  if (text !== null && found.textContent !== text) found.textContent = text;
  if (found.classList.contains("notice")) found.hidden = text === null;
}

export function bytes(count: number): string {
  if (count < 1000) return `${count} B`;
  return count < 1e6 ? `${(count / 1000).toFixed(1)} kB` : `${(count / 1e6).toFixed(1)} MB`;
}

export function percent(share: number | null): string {
  return share === null ? "–" : `${(100 * share).toFixed(0)} %`;
}
