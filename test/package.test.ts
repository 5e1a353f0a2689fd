import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import {
  cpSync,
  existsSync,
  globSync,
  mkdirSync,
  mkdtempSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, dirname, join } from 'node:path'
import { after, before, test } from 'node:test'
import { promisify } from 'node:util'
import { testDatabase } from './postgres.ts'

const run = promisify(execFile)
const root = join(import.meta.dirname, '..')

// Both folders stand outside the checkout. Packing happens in a copy, so that `dist/` of the checkout stays as it is;
// the project that installs the package finds nothing of the checkout by accident.
const temporary = realpathSync(mkdtempSync(join(tmpdir(), 'sluice-package-')))
const copy = join(temporary, 'copy')
const project = join(temporary, 'project')
const PACKED = [
  'package.json',
  '.npmrc',
  'tsconfig.json',
  'tsconfig.build.json',
  'LICENSE',
  'NOTICE',
  'README.md',
]
const FOLDERS = ['bin', 'src', 'toolchain']

// npm and what it starts take the first `node` in PATH, which has to be the one that runs this test.
const env = { ...process.env, PATH: [dirname(process.execPath), process.env.PATH].join(delimiter) }

const npm = (cwd: string, ...args: readonly string[]) => run('npm', args, { cwd, env, timeout: 120_000 })
const node = (...args: readonly string[]) =>
  run(process.execPath, args, { cwd: project, env, timeout: 60_000 })

let packed: readonly string[] = []

before(async () => {
  mkdirSync(copy)
  for (const name of [...PACKED, ...FOLDERS]) {
    if (existsSync(join(root, name))) cpSync(join(root, name), join(copy, name), { recursive: true })
  }
  symlinkSync(join(root, 'node_modules'), join(copy, 'node_modules'), 'junction')
  // `npm pack` builds first, through `prepack`. Silent, because what scripts print would stand before the JSON.
  const { stdout } = await npm(copy, 'pack', '--json', '--silent', '--pack-destination', temporary)
  const [tarball] = Object.values<{ filename: string; files: { path: string }[] }>(JSON.parse(stdout))
  assert.ok(tarball)
  packed = tarball.files.map(({ path }) => path)

  mkdirSync(project)
  writeFileSync(join(project, 'package.json'), '{ "name": "guest", "private": true, "type": "module" }')
  await npm(
    project,
    'install',
    '--prefer-offline',
    '--no-audit',
    '--no-fund',
    join(temporary, tarball.filename),
  )
})

after(() => rmSync(temporary, { recursive: true, force: true }))

test('the package holds JavaScript, declarations and SQL, and neither sources nor tests', () => {
  const wanted = [
    'LICENSE',
    'NOTICE',
    'bin/sluice.js',
    'dist/index.js',
    'dist/index.d.ts',
    'dist/cli/main.js',
  ]
  const sql = globSync('**/*.sql', { cwd: join(root, 'src') }).map((path) => join('dist', path))
  for (const path of [...wanted, ...sql]) assert.ok(packed.includes(path), `${path} is missing`)
  assert.deepEqual(
    packed.filter((path) => /\.test\.|^(src|test|bench|toolchain)\/|(?<!\.d)\.ts$/.test(path)),
    [],
  )
})

test('a JavaScript program in another project imports the front door', async () => {
  writeFileSync(
    join(project, 'guest.js'),
    `import { createEngine, definePolicy, memoryStore } from 'sluice'
     console.log([createEngine, definePolicy, memoryStore].map((value) => typeof value).join())`,
  )
  const { stdout } = await node('guest.js')
  assert.equal(stdout.trim(), 'function,function,function')
})

test('importing it loads no driver, and its store on PostgreSQL stands behind a door of its own', async () => {
  const database = await testDatabase()
  writeFileSync(
    join(project, 'shared.js'),
    `import { registerHooks } from 'node:module'
     const wanted = []
     registerHooks({ resolve: (name, context, next) => (wanted.push(name), next(name, context)) })
     const { createEngine } = await import('sluice')
     const early = wanted.includes('pg')
     const { postgresStore } = await import('sluice/postgres')
     const engine = await createEngine({ store: postgresStore({ url: ${JSON.stringify(database.url)} }) })
     console.log(early, wanted.includes('pg'), engine.health().detail.schema > 0)
     await engine.close()`,
  )
  try {
    assert.equal((await node('shared.js')).stdout.trim(), 'false true true')
  } finally {
    await database.drop()
  }
})

test('a TypeScript program is checked against the declarations, which are not `any`', async () => {
  writeFileSync(
    join(project, 'guest.ts'),
    `import { createEngine, definePolicy, memoryStore } from 'sluice'
     import { postgresStore } from 'sluice/postgres'
     type IsAny<T> = 0 extends 1 & T ? true : false
     export const areAny: IsAny<typeof createEngine> | IsAny<typeof definePolicy> | IsAny<typeof memoryStore> = false
     export const isAny: IsAny<ReturnType<typeof createEngine>> | IsAny<ReturnType<typeof memoryStore>> = false
     export const isAnyThere: IsAny<typeof postgresStore> | IsAny<ReturnType<typeof postgresStore>> = false
     // @ts-expect-error A policy is not a number.
     definePolicy(1)`,
  )
  const compilerOptions = {
    ...{ strict: true, noEmit: true, module: 'nodenext', target: 'esnext', lib: ['esnext'] },
    ...{ types: ['node'], typeRoots: [join(root, 'node_modules/@types')] },
  }
  writeFileSync(join(project, 'tsconfig.json'), JSON.stringify({ compilerOptions, files: ['guest.ts'] }))
  const { stdout } = await node(join(root, 'node_modules/typescript/bin/tsc'), '-p', project).catch(
    (error) => error,
  )
  assert.equal(stdout, '')
})

test('the command line runs from the package', async () => {
  const { stdout } = await node(join(project, 'node_modules/sluice/bin/sluice.js'), '--help')
  assert.match(stdout, /sluice/)
})
