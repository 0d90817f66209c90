// Builds the terminal's page into the Go package that embeds it: every file
// only compressed, as it is served.
import { build } from 'esbuild';
import { mkdir, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { constants, gzipSync } from 'node:zlib';

const output = new URL('../internal/runner/ttyd/page/', import.meta.url);
const limit = 600 * 1024;

const result = await build({
  entryPoints: ['terminal/src/main.ts', 'terminal/style.css'],
  outdir: 'page',
  entryNames: '[name]',
  bundle: true,
  minify: true,
  format: 'esm',
  target: ['chrome109', 'firefox115', 'safari16.4'],
  legalComments: 'none',
  write: false,
});

const files = result.outputFiles.map((file) => [file.path.split('/').pop(), file.contents]);
for (const name of ['index.html', 'icon.svg']) {
  files.push([name, await readFile(new URL(`terminal/${name}`, import.meta.url))]);
}

await mkdir(output, { recursive: true });
for (const old of await readdir(output)) {
  if (old !== '.gitkeep') await rm(new URL(old, output));
}
let sum = 0;
for (const [name, data] of files) {
  const zipped = gzipSync(data, { level: constants.Z_BEST_COMPRESSION });
  sum += zipped.length;
  await writeFile(new URL(`${name}.gz`, output), zipped);
}
if (sum > limit) throw new Error(`the page is ${sum} bytes compressed, more than ${limit}`);
console.log(`page: ${files.length} files, ${Math.round(sum / 1024)} KiB compressed`);
