// Runs before anything is painted, so that the page does not flash: a theme that was chosen in this tab.
{
  const chosen = sessionStorage.getItem("resad-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  document.addEventListener("DOMContentLoaded", () => {
    document.getElementById("theme").addEventListener("click", () => {
      const root = document.documentElement;
      const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
      root.dataset.theme = dark ? "light" : "dark";
      sessionStorage.setItem("resad-theme", root.dataset.theme);
    });
  });
}
