// Build the page from values. Everything that came from outside becomes text, never markup.

// Characters that hide or reorder what surrounds them. A file name must not look like another.
const DECEIVING = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

export function plain(value) {
  return String(value).replace(
    DECEIVING,
    (char) => `⟨U+${char.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`,
  );
}

/**
 * An element. `props`: `class`, `onclick` and the like, otherwise attributes; false and null leave
 * an attribute out. Children: nodes, strings, numbers; false and null are left out.
 */
export function h(tag, props, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else element.setAttribute(name, value === true ? "" : plain(value));
  }
  element.append(...nodes(children));
  return element;
}

function nodes(children) {
  return children
    .flat(Infinity)
    .filter((child) => child !== null && child !== undefined && child !== false && child !== "")
    .map((child) => (child instanceof Node ? child : document.createTextNode(plain(child))));
}

export function fill(element, ...children) {
  element.replaceChildren(...nodes(children));
}

export function setText(element, value) {
  const text = plain(value);
  if (element.textContent !== text) element.textContent = text;
}

/** A link where the address is one that a browser should open, otherwise its text. */
export function linkTo(url) {
  if (!/^https?:\/\//i.test(url)) return h("span", { class: "address" }, url);
  return h("a", { class: "address", href: url, target: "_blank", rel: "noopener noreferrer" }, url);
}

export async function copy(text) {
  await navigator.clipboard.writeText(text);
}
