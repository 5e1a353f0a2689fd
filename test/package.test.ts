import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { globSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { promisify } from 'node:util'
import { type Guest, installPacked, ROOT } from './pack.ts'
import { testDatabase } from './postgres.ts'

let guest: Guest
const installed = (...path: readonly string[]) => join(guest.folder, 'node_modules/sluice', ...path)

before(async () => {
  guest = await installPacked('.', [
    'package.json',
    '.npmrc',
    'tsconfig.json',
    'tsconfig.build.json',
    'LICENSE',
    'NOTICE',
    'README.md',
    'bin',
    'src',
    'client',
    'toolchain',
  ])
})
after(() => guest?.remove())

test('the package holds JavaScript, declarations, SQL and protos, and neither sources nor tests', () => {
  const packed = globSync('**/*', { cwd: installed(), exclude: ['node_modules/**'] })
  const wanted = [
    'LICENSE',
    'NOTICE',
    'bin/sluice.js',
    'bin/heap.js',
    'dist/src/index.js',
    'dist/src/index.d.ts',
    'dist/src/cli/main.js',
  ]
  const read = globSync('**/*.{sql,proto}', { cwd: join(ROOT, 'src') }).map((path) => join('dist/src', path))
  for (const path of [...wanted, ...read]) assert.ok(packed.includes(path), `${path} is missing`)
  assert.deepEqual(
    packed.filter((path) => /\.test\.|^(src|test|bench|toolchain)\/|(?<!\.d)\.ts$/.test(path)),
    [],
  )
})

test('a JavaScript program in another project imports the front door', async () => {
  guest.write(
    'guest.js',
    `import { createEngine, definePolicy, memoryStore } from 'sluice'
     console.log([createEngine, definePolicy, memoryStore].map((value) => typeof value).join())`,
  )
  assert.equal((await guest.node(['guest.js'])).trim(), 'function,function,function')
})

test("Envoy's services are made from the protos that it carries", async () => {
  const grpc = installed('dist/src/gateway/beside/grpc.js')
  guest.write(
    'envoy.js',
    `import { envoyServices } from ${JSON.stringify(grpc)}
     const { rateLimit, authorization } = envoyServices()
     console.log(rateLimit.ShouldRateLimit.path, authorization.Check.path)`,
  )
  assert.equal(
    (await guest.node(['envoy.js'])).trim(),
    '/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit /envoy.service.auth.v3.Authorization/Check',
  )
})

test('importing it loads no driver, and its store on PostgreSQL stands behind a door of its own', async () => {
  const database = await testDatabase()
  guest.write(
    'shared.js',
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
    assert.equal((await guest.node(['shared.js'])).trim(), 'false true true')
  } finally {
    await database.drop()
  }
})

test('a TypeScript program is checked against the declarations, which are not `any`', async () => {
  guest.write(
    'guest.ts',
    `import { createEngine, definePolicy, memoryStore } from 'sluice'
     import { postgresStore } from 'sluice/postgres'
     type IsAny<T> = 0 extends 1 & T ? true : false
     export const areAny: IsAny<typeof createEngine> | IsAny<typeof definePolicy> | IsAny<typeof memoryStore> = false
     export const isAny: IsAny<ReturnType<typeof createEngine>> | IsAny<ReturnType<typeof memoryStore>> = false
     export const isAnyThere: IsAny<typeof postgresStore> | IsAny<ReturnType<typeof postgresStore>> = false
     // @ts-expect-error A policy is not a number.
     definePolicy(1)`,
  )
  const said = await guest.check('guest.ts', {
    ...{ target: 'esnext', lib: ['esnext'] },
    ...{ types: ['node'], typeRoots: [join(ROOT, 'node_modules/@types')] },
  })
  assert.equal(said, '')
})

test('the command line runs from the package, and so do the threads of its audit', async () => {
  const sluice = (...args: readonly string[]) => guest.node([installed('bin/sluice.js'), ...args])
  assert.match(await sluice('--help'), /sluice/)
  guest.write(
    'books.js',
    `import { createEngine, sqliteStore } from 'sluice'
     const engine = await createEngine({
       store: sqliteStore({ path: 'books.db' }),
       policy: { features: { job: {} }, plans: { plan: { waterfall: [{ credits: ['purchased'] }] } } },
     })
     await engine.createAccount({ id: 'a', plan: 'plan' })
     await engine.close()`,
  )
  await guest.node(['books.js'])
  assert.match(
    await sluice('audit', '--jobs', '2', '--store', 'sqlite:books.db'),
    /^Nothing disagrees: .* 2 accounts/,
  )
})

test('a server starts with a heap of its own, in the same process, unless one is chosen', async () => {
  const starts = async (args: readonly string[], more = ''): Promise<string[][]> => {
    const tell = "console.error('start',process.pid,process.execArgv.join('\u0020'))"
    const { stderr } = await promisify(execFile)(process.execPath, [installed('bin/sluice.js'), ...args], {
      env: {
        ...process.env,
        NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(tell)} ${more}`,
      },
    })
    return [...stderr.matchAll(/^start (\d+) ?(.*)$/gm)].map(([, pid = '', flags = '']) => [pid, flags])
  }
  for (const command of ['serve', 'gateway']) {
    const [first, second, ...others] = await starts([command, '--help'])
    assert.deepEqual([first?.[0], first?.[1], others], [second?.[0], '', []])
    assert.match(second?.[1] ?? '', /--max-semi-space-size=\d+/)
  }
  assert.equal((await starts(['serve', '--help'], '--max-semi-space-size=8')).length, 1)
  assert.equal((await starts(['audit', '--help'])).length, 1)
})
