import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import {
  cpSync,
  globSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { delimiter, dirname, join } from 'node:path'
import { after, before, test } from 'node:test'
import { promisify } from 'node:util'
import { gzipSync } from 'node:zlib'

const run = promisify(execFile)
const root = join(import.meta.dirname, '..')
const temporary = realpathSync(mkdtempSync(join(tmpdir(), 'sluice-client-')))
const copy = join(temporary, 'copy')
const project = join(temporary, 'project')
const env = { ...process.env, PATH: [dirname(process.execPath), process.env.PATH].join(delimiter) }
const npm = (cwd: string, ...args: readonly string[]) => run('npm', args, { cwd, env, timeout: 120_000 })
const DOORS = ['', '/node', '/express', '/fastify', '/hono', '/web', '/ai', '/openai']

// As in package.test.ts: packed in a copy, installed where nothing of the checkout is found by accident.
before(async () => {
  mkdirSync(copy)
  for (const name of [
    'tsconfig.json',
    'tsconfig.client.json',
    'package.json',
    'LICENSE',
    'client',
    'src',
    'toolchain',
  ])
    cpSync(join(root, name), join(copy, name), { recursive: true })
  rmSync(join(copy, 'client/dist'), { recursive: true, force: true })
  symlinkSync(join(root, 'node_modules'), join(copy, 'node_modules'), 'junction')
  await npm(join(copy, 'client'), 'pack', '--silent', '--pack-destination', temporary)
  const [tarball] = globSync('sluice-client-*.tgz', { cwd: temporary })
  assert.ok(tarball)
  mkdirSync(project)
  writeFileSync(join(project, 'package.json'), '{ "name": "guest", "private": true, "type": "module" }')
  await npm(project, 'install', '--offline', '--no-audit', '--no-fund', join(temporary, tarball))
})
after(() => rmSync(temporary, { recursive: true, force: true }))

const installed = (...path: readonly string[]) => join(project, 'node_modules/@sluice/client', ...path)

test('the package is JavaScript with declarations and a licence, and depends on nothing', () => {
  const files = globSync('**/*', { cwd: installed() }).filter((path) => statSync(installed(path)).isFile())
  assert.deepEqual(
    files.filter(
      (path) => !/^(dist\/(client|src)\/[a-z-]+(\.d\.ts|\.js)|package\.json|LICENSE|README\.md)$/.test(path),
    ),
    [],
  )
  assert.ok(files.includes('LICENSE'))
  const { dependencies = {}, peerDependencies = {} } = JSON.parse(
    readFileSync(installed('package.json'), 'utf8'),
  )
  assert.deepEqual([dependencies, peerDependencies], [{}, {}])
  assert.deepEqual(globSync('node_modules/*', { cwd: project }), ['node_modules/@sluice'])
})

test('its README tells its size', () => {
  const { size } = measure()
  const [, told] = /([\d.]+) KB compressed/.exec(readFileSync(join(root, 'client/README.md'), 'utf8')) ?? []
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

test('every door opens, and the first needs nothing of Node', async () => {
  writeFileSync(
    join(project, 'doors.js'),
    `for (const door of ${JSON.stringify(DOORS)}) console.log(door, Object.keys(await import('@sluice/client' + door)).sort().join())`,
  )
  const { stdout } = await run(process.execPath, ['doors.js'], { cwd: project, env })
  assert.match(stdout, /^ AccessRefused,SluiceError,createClient,memorySpool$/m)
  assert.match(stdout, /^\/node closeOnSignals,fileSpool$/m)
  for (const door of ['/express', '/fastify', '/hono', '/ai'])
    assert.match(stdout, new RegExp(`^${door} .*\\bsluice\\b`, 'm'))
  for (const file of globSync('dist/**/*.js', { cwd: installed() })) {
    if (file.endsWith('/node.js')) continue
    assert.doesNotMatch(readFileSync(installed(file), 'utf8'), /from 'node:|\bBuffer\.|\bprocess\.\w/, file)
  }
})

for (const [name, lib] of [
  ['with the types of a browser', ['es2022', 'dom', 'dom.iterable']],
  ['without them, with those of Node', ['es2022']],
] as const) {
  test(`a TypeScript project ${name} checks a program of three lines`, async () => {
    writeFileSync(
      join(project, 'guest.ts'),
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
    const types = name.startsWith('without') ? [join(root, 'node_modules/@types/node')] : []
    writeFileSync(
      join(project, 'tsconfig.json'),
      JSON.stringify({
        compilerOptions: {
          strict: true,
          exactOptionalPropertyTypes: true,
          noEmit: true,
          target: 'es2022',
          module: 'nodenext',
          lib,
          types,
          skipLibCheck: false,
        },
        files: ['guest.ts'],
      }),
    )
    const typescript = dirname(createRequire(import.meta.url).resolve('typescript/package.json'))
    await run(process.execPath, [join(typescript, 'bin/tsc'), '-p', project], { cwd: project, env }).catch(
      ({ stdout }) => assert.fail(stdout),
    )
  })
}
