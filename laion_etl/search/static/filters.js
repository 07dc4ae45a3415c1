// The filter fields: their choices, and the conversion to and from the URL of the page.

const NAMES = ["language", "subset", "license", "min_similarity", "min_aesthetic", "domain", "unsafe"];
const form = document.getElementById("search");

export function offer(facts) {
  const languages = new Intl.DisplayNames(["en"], { type: "language", fallback: "code" });
  for (const [code, count] of Object.entries(facts.languages)) {
    addOption("language", code, `${languageName(code, languages)} (${count.toLocaleString()})`);
  }
  for (const { name, rule } of facts.subsets) addOption("subset", name, name).title = rule;
  for (const [url, count] of Object.entries(facts.licenses)) {
    if (url !== "?") addOption("license", url, `${licenseName(url)} (${count.toLocaleString()})`);
  }
}

export function licenseName(url) {
  if (url === "?") return "unknown";
  const parts = url.match(/creativecommons\.org\/(?:licenses|publicdomain)\/([^/]+)(?:\/([^/]+))?/);
  return parts ? `CC ${parts[1]} ${parts[2] ?? ""}`.trim() : url;
}

export function languageName(code, names = new Intl.DisplayNames(["en"], { type: "language" })) {
  if (code === "nolang") return "not known";
  try {
    return names.of(code);
  } catch {
    return code;
  }
}

// Fills the fields from a URL's filters; a value that is not among the choices is added to them.
export function show(parameters) {
  for (const name of NAMES) {
    const field = form.elements[name];
    const value = parameters.get(name) ?? "";
    if (field.type === "checkbox") {
      field.checked = value === "true";
    } else {
      if (field.tagName === "SELECT" && ![...field.options].some((option) => option.value === value)) {
        addOption(name, value, value);
      }
      field.value = value;
    }
  }
  const set = NAMES.filter((name) => parameters.get(name)).length;
  document.getElementById("filters-set").textContent = set ? ` (${set})` : "";
  if (set) document.getElementById("filters").open = true;
}

// The filters that are set, as parameters.
export function chosen() {
  const parameters = new URLSearchParams();
  for (const name of NAMES) {
    const field = form.elements[name];
    const value = field.type === "checkbox" ? (field.checked ? "true" : "") : field.value.trim();
    if (value) parameters.set(name, value);
  }
  return parameters;
}

// What is wrong with the first field that has no valid value; null if all have.
export function problem() {
  const field = NAMES.map((name) => form.elements[name]).find((one) => !one.validity.valid);
  if (!field) return null;
  const label = field.closest("label").firstChild.textContent;
  return `${label}: ${field.validationMessage || "not a valid value"}`;
}

export function clear() {
  for (const name of NAMES) {
    const field = form.elements[name];
    if (field.type === "checkbox") field.checked = false;
    else field.value = "";
  }
}

function addOption(name, value, text) {
  const option = new Option(text, value);
  form.elements[name].append(option);
  return option;
}
