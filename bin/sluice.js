#!/usr/bin/env node
// The door to the command line. It is plain JavaScript in syntax that any Node reads, because an old Node must be
// able to refuse in one line instead of failing on the first type annotation. Nothing else belongs here but how Node is started.
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { SERVER_HEAP } from './heap.js'

const major = Number(process.versions.node.split('.')[0])
if (major < 26) {
  console.error(
    `sluice: needs Node.js 26 or newer, and this is ${process.versions.node}: install it from https://nodejs.org, or run "npm ci" and "npx sluice" in a checkout, which brings its own.`,
  )
  process.exit(1)
}

// The same process goes on as a Node with the heap of a server, unless somebody has chosen one, or is connected to this one.
const [, , command = ''] = process.argv
const chosen = [...process.execArgv, process.env.NODE_OPTIONS ?? ''].some((text) =>
  text.includes('semi-space'),
)
const canStartAnew = process.platform !== 'win32' && process.send === undefined
if (['serve', 'gateway'].includes(command) && !chosen && canStartAnew) {
  const own = fileURLToPath(import.meta.url)
  process.execve(
    process.execPath,
    [process.execPath, ...process.execArgv, ...SERVER_HEAP, own, ...process.argv.slice(2)],
    process.env,
  )
}

// A checkout has the sources, which Node runs as they are. It refuses to do so under node_modules, so the package
// has no sources and carries what they were compiled to.
const source = new URL('../src/cli/main.ts', import.meta.url)
await import(existsSync(source) ? source.href : new URL('../dist/src/cli/main.js', import.meta.url).href)
