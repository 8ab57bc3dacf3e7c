// Bundles the dashboards' pages into the Python package. With --into FOLDER elsewhere, for comparing.
import { build } from "esbuild";
import { readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const at = process.argv.indexOf("--into");
const out = at > 0 ? process.argv[at + 1] : join(here, "..", "llm_jupyter", "widgets", "static");

await build({
  absWorkingDir: here,
  entryPoints: { dashboards: "src/main.tsx" },
  outdir: out,
  bundle: true,
  format: "esm",
  target: "es2022",
  minify: true,
  charset: "utf8",
  jsx: "automatic",
  jsxImportSource: "preact",
  legalComments: "none",
  logLevel: "warning",
});
await build({
  absWorkingDir: here,
  entryPoints: { dashboards: "src/styles.css" },
  outdir: out,
  bundle: true,
  minify: true,
  logLevel: "warning",
});

const { dependencies } = JSON.parse(readFileSync(join(here, "package.json"), "utf8"));
const notices = Object.keys(dependencies).sort().map((name) => {
  const folder = join(here, "node_modules", name);
  const { version, license } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  const file = ["LICENSE", "LICENSE.md", "LICENSE.txt"].map((one) => join(folder, one)).find((one) => {
    try { readFileSync(one); return true; } catch { return false; }
  });
  return `${name} ${version} (${license})\n\n${file ? readFileSync(file, "utf8").trim() : ""}\n`;
});
writeFileSync(join(out, "LICENSES.txt"), `dashboards.js contains:\n\n${notices.join("\n" + "-".repeat(80) + "\n\n")}`);
