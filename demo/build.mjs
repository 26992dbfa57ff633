// Installs the packages of package-lock.json and bundles src/ into dist/. Needs Node 20 and npm.

import { spawn } from 'node:child_process';
import { cpSync, existsSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

process.chdir(fileURLToPath(new URL('.', import.meta.url)));

if (Number(process.versions.node.split('.')[0]) < 20) {
  console.error(`The demo needs Node 20 or later; this is ${process.version}.`);
  process.exit(1);
}

const LOCK = readFileSync('package-lock.json', 'utf8');
const INSTALLED = 'node_modules/.installed-from'; // the lock of the last complete installation

// Tells how many of the packages are there while npm, which says nothing, installs them.
async function install() {
  const wanted = Object.entries(JSON.parse(LOCK).packages)
    .filter(([path, { optional }]) => path && !optional) // optional: for another kind of machine, mostly
    .map(([path]) => path);
  const progress = () => wanted.filter(path => existsSync(`${path}/package.json`)).length;
  console.log('Installing the packages of the demo, which takes a minute or two the first time:');
  const npm = spawn('npm', ['ci', '--loglevel=error'], { stdio: ['ignore', 'ignore', 'inherit'], shell: process.platform === 'win32' });
  const timer = setInterval(() => console.log(`  ${progress()} of ${wanted.length}`), 5000);
  const status = await new Promise((resolve, reject) => npm.on('exit', resolve).on('error', reject)).finally(() => clearInterval(timer));
  if (status !== 0) {
    console.error("npm ci failed. If it could not reach the registry, set npm's proxy or registry, and try again.");
    process.exit(1);
  }
  writeFileSync(INSTALLED, LOCK);
}

if (!existsSync(INSTALLED) || readFileSync(INSTALLED, 'utf8') !== LOCK) await install();

console.log('Bundling the demo, which takes about ten seconds.');
const { build } = await import('esbuild');
rmSync('dist', { recursive: true, force: true });
await build({
  entryPoints: ['src/index.jsx'],
  outdir: 'dist/static',
  bundle: true,
  splitting: true,
  format: 'esm',
  target: 'es2022',
  jsx: 'automatic',
  minify: true,
  keepNames: true, // the names of components in React's errors
  legalComments: 'linked',
  logLevel: 'warning',
  loader: { '.svg': 'file', '.png': 'file', '.woff': 'file', '.woff2': 'file' },
  define: { 'process.env.NODE_ENV': '"production"', 'process.env': '{}', global: 'globalThis' },
});
cpSync('src/index.html', 'dist/index.html'); // last: the Makefile takes it for the whole
