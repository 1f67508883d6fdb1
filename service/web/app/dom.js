// Elements of the page, found and made.

/** The element of this id. */
export const byId = (id) => document.getElementById(id);

/**
 * A new element; `on...` are listeners, `true` and `false` set and leave out an attribute; null, false and empty
 * children are none, and lists are their items.
 */
export function element(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** As `element`, of SVG. */
export function drawing(tag, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

/** Sets `aria-pressed` of a button. */
export function press(button, pressed) {
  button.setAttribute("aria-pressed", String(pressed));
}

/** Hands a file to the browser's downloads. */
export function save(blob, name) {
  const address = URL.createObjectURL(blob);
  const link = element("a", { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

function filled(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value != null) made.setAttribute(name, value);
  }
  made.append(...children.flat().filter((child) => child != null && child !== false && child !== ""));
  return made;
}
