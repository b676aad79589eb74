// Makes and changes elements. Text is set as text, never as markup.

export function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function make(name, text, className) {
  const element = document.createElement(name);
  if (text) element.textContent = text;
  if (className) element.className = className;
  return element;
}

export function fill(list, key, rows) {
  if (list.dataset.key === key) return;
  list.dataset.key = key;
  list.replaceChildren(...rows());
}
