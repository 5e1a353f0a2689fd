import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { existsSync, globSync, readFileSync, statSync } from 'node:fs'
import { delimiter, dirname, join } from 'node:path'
import { after, before, test } from 'node:test'
import { gzipSync } from 'node:zlib'
import { CLIENT_NEEDS, type Guest, installPacked, ROOT } from './pack.ts'

const DOORS = ['', '/node', '/express', '/fastify', '/hono', '/web', '/ai', '/openai']
let guest: Guest
before(async () => {
  guest = await installPacked('client', CLIENT_NEEDS)
})
after(() => guest?.remove())

const installed = (...path: readonly string[]) => join(guest.folder, 'node_modules/@sluice/client', ...path)
const manifest = () => JSON.parse(readFileSync(installed('package.json'), 'utf8'))

test('the package is JavaScript with declarations and a licence, and depends on nothing', () => {
  const files = globSync('**/*', { cwd: installed() }).filter((path) => statSync(installed(path)).isFile())
  assert.deepEqual(
    files.filter(
      (path) => !/^(dist\/(client|src)\/[a-z-]+(\.d\.ts|\.js)|package\.json|LICENSE|README\.md)$/.test(path),
    ),
    [],
  )
  assert.ok(files.includes('LICENSE'))
  const { dependencies = {}, peerDependencies = {} } = manifest()
  assert.deepEqual([dependencies, peerDependencies], [{}, {}])
  assert.deepEqual(globSync('node_modules/*', { cwd: guest.folder }), ['node_modules/@sluice'])
})

test('its README tells its size', () => {
  const { size } = measure()
  const [, told] = /([\d.]+) KB compressed/.exec(readFileSync(join(ROOT, 'client/README.md'), 'utf8')) ?? []
  assert.ok(Math.abs(Number(told) - size / 1000) < 1, `it is ${(size / 1000).toFixed(1)} KB`)
})

/** What `import { createClient }` loads, compressed together. */
function measure() {
  const seen = new Set<string>()
  const load = (file: string): void => {
    if (seen.has(file)) return
    seen.add(file)
    for (const [, from] of readFileSync(file, 'utf8').matchAll(
      /^(?:import|export) .*?from '(\..*?)'|^import '(\..*?)'/gms,
    ))
      if (from !== undefined) load(join(dirname(file), from))
  }
  load(installed('dist/client/index.js'))
  return { size: gzipSync([...seen].map((file) => readFileSync(file, 'utf8')).join('')).length }
}

test('every door opens on every Node.js that can be found here, and the first needs nothing of it', async (t) => {
  guest.write(
    'doors.js',
    `for (const door of ${JSON.stringify(DOORS)}) console.log(door, Object.keys(await import('@sluice/client' + door)).sort().join())`,
  )
  const least = Number(/>=(\d+)/.exec(manifest().engines.node)?.[1])
  for (const { program, version } of nodes()) {
    const isSupported = Number(version.split('.')[0]) >= least
    t.diagnostic(`${version}${isSupported ? '' : ' is too old'}`)
    if (!isSupported) continue
    const opened = await guest.node(['doors.js'], program)
    assert.match(opened, /^ AccessRefused,SluiceError,createClient,memorySpool$/m, version)
    assert.match(opened, /^\/node closeOnSignals,fileSpool$/m)
    for (const door of ['/express', '/fastify', '/hono', '/ai'])
      assert.match(opened, new RegExp(`^${door} .*\\bsluice\\b`, 'm'))
  }
  for (const file of globSync('dist/**/*.js', { cwd: installed() })) {
    if (file.endsWith('/node.js')) continue
    assert.doesNotMatch(readFileSync(installed(file), 'utf8'), /from 'node:|\bBuffer\.|\bprocess\.\w/, file)
  }
})

/** This one, those that the toolchain brings for tests, and those of PATH: each version once. */
function nodes() {
  const brought = globSync(join(ROOT, 'node_modules/node-2[0-9]/bin/node'))
  const others = (process.env.PATH ?? '').split(delimiter).map((folder) => join(folder, 'node'))
  const found = new Map<string, string>()
  for (const program of [process.execPath, ...brought, ...others]) {
    if (!existsSync(program)) continue
    const version = execFileSync(program, ['-p', 'process.versions.node'], { encoding: 'utf8' }).trim()
    if (!found.has(version)) found.set(version, program)
  }
  return [...found].map(([version, program]) => ({ version, program }))
}

for (const [name, lib] of [
  ['with the types of a browser', ['es2022', 'dom', 'dom.iterable']],
  ['without them, with those of Node', ['es2022']],
] as const) {
  test(`a TypeScript project ${name} checks a program of three lines`, async () => {
    guest.write(
      'guest.ts',
      `import { createClient } from '@sluice/client'
       ${DOORS.slice(1)
         .filter((door) => door !== '/node' || name.startsWith('without'))
         .map((door, place) => `import * as d${place} from '@sluice/client${door}'; void d${place}`)
         .join('\n')}
       const sluice = createClient({ url: 'http://x', key: 'k', onUnavailable: { mode: 'bounded', perAccount: '5' } })
       const answer = await sluice.access({ account: 'acme', feature: 'f', estimate: { tokens: 1 } }, async (lease) => lease.report({ tokens: 2 }))
       if (answer.ok) { const value: boolean = answer.value; void value } else { const reason: string = answer.reason; void reason }
       // @ts-expect-error: a feature is needed
       void sluice.reserve({ request_id: 'r', account: 'a' })`,
    )
    const types = name.startsWith('without') ? [join(ROOT, 'node_modules/@types/node')] : []
    const said = await guest.check('guest.ts', {
      ...{ exactOptionalPropertyTypes: true, target: 'es2022', skipLibCheck: false },
      ...{ lib, types },
    })
    assert.equal(said, '')
  })
}
