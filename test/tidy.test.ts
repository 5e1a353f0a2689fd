import assert from 'node:assert/strict'
import { globSync, readFileSync } from 'node:fs'
import { join, sep } from 'node:path'
import { describe, test } from 'node:test'
import { check, longOnes, roomOf, type SourceFile } from './tidy.ts'

const root = join(import.meta.dirname, '..')
const house: readonly SourceFile[] = globSync('{src,client,console,test,bench,examples,toolchain}/**/*.ts', {
  cwd: root,
  exclude: (path) => /(^|[\\/])(node_modules|dist)$/.test(path),
}).map((path) => ({ path: path.split(sep).join('/'), text: readFileSync(join(root, path), 'utf8') }))

/** What the checker says about one file, as `rule: message`. */
const saysOf = (path: string, text: string): readonly string[] =>
  check([{ path, text }]).map(({ rule, message }) => `${rule}: ${message}`)

test('the house keeps its rules', (t) => {
  for (const sentence of longOnes(house)) t.diagnostic(sentence)
  assert.ok(house.length > 0, 'no sources were found')
  const complaints = check(house).map(
    ({ rule, path, line, message }) => `${path}:${line} ${rule}: ${message}`,
  )
  assert.deepEqual(complaints, [])
})

describe('doors', () => {
  const refused: readonly [path: string, text: string, says: string][] = [
    ['src/units.ts', "import './assert.ts'", 'units may not import assert'],
    [
      'src/assert.ts',
      "import assert from 'node:assert'",
      'assert imports nothing from outside: not node:assert',
    ],
    ['src/errors.ts', "import '../package.json' with { type: 'json' }", 'errors may not import package.json'],
    ['src/ledger/a.ts', "import { f } from '../kernel/f.ts'", 'ledger may not import kernel'],
    ['src/ledger/a.ts', "import { f } from '../errors.ts'", 'ledger may not import errors'],
    ['src/kernel/a.ts', "import { p } from '../policy/p.ts'", 'kernel may not import policy'],
    ['src/kernel/a.ts', "import type { p } from '../policy/p.ts'", 'kernel may not import policy'],
    ['src/kernel/a.ts', "type P = import('../policy/p.ts').P", 'kernel may not import policy'],
    ['src/kernel/a.ts', "export * from '../engine.ts'", 'kernel may not import engine'],
    ['src/kernel/a.ts', "export { e } from '../engine.ts'", 'kernel may not import engine'],
    ['src/kernel/a.ts', "import { x } from 'yaml'", 'kernel imports nothing from outside: not yaml'],
    ['src/kernel/a.ts', "import fs from 'node:fs'", 'kernel imports nothing from outside: not node:fs'],
    ['src/policy/a.ts', "import '../store.ts'", 'policy may not import store'],
    [
      'src/store.ts',
      "import { d } from './kernel/d.ts'",
      'store may import only types of kernel: write import type',
    ],
    [
      'src/store.ts',
      "import { type D } from './kernel/d.ts'",
      'store may import only types of kernel: write import type',
    ],
    [
      'src/store/sqlite/store.ts',
      "import { decide } from '../../kernel/decide.ts'",
      'sqlite may import only types of kernel: write import type',
    ],
    ['src/store/sqlite/store.ts', "import '../memory.ts'", 'sqlite may not import memory'],
    ['src/store/memory.ts', "import './sqlite/store.ts'", 'memory may not import sqlite'],
    ['src/store/memory.ts', "import '../engine.ts'", 'memory may not import engine'],
    ['src/engine.ts', "import './store/memory.ts'", 'engine may not import memory'],
    ['src/engine.ts', "import 'fastify'", 'engine imports nothing from outside: not fastify'],
    ['src/server/app.ts', "import '../store.ts'", 'server may not import store'],
    ['src/server/app.ts', "await import('../store/sqlite/store.ts')", 'server may not import sqlite'],
    ['src/server/routes/a.ts', "import '../../gateway/a.ts'", 'server may not import gateway'],
    ['src/gateway/a.ts', "import '../server/app.ts'", 'gateway may not import server'],
    ['src/sim/a.ts', "import '../store/sqlite/store.ts'", 'sim may not import sqlite'],
    ['client/index.ts', "import '../src/wire.ts'", 'client may import only types of wire: write import type'],
    ['console/app.ts', "import '../src/engine.ts'", 'console may not import engine'],
    ['src/server/app.ts', "import '../cli/main.ts'", 'nobody imports cli'],
    ['src/cli/main.ts', "import '../index.ts'", 'nobody imports index'],
    ['src/engine.ts', "import './engine.test.ts'", 'nobody imports a test: not ./engine.test.ts'],
    ['src/kernel/a.test.ts', "import '../engine.ts'", 'kernel is built before engine, its tests too'],
  ]
  for (const [path, text, says] of refused) {
    test(`${path} may not have: ${text}`, () => {
      assert.ok(saysOf(path, text).includes(`door: ${says}`), `${saysOf(path, text)}`)
    })
  }

  const open: readonly [path: string, text: string][] = [
    [
      'src/kernel/a.ts',
      "import { u } from '../units.ts'; import { l } from '../ledger/l.ts'; import './b.ts'",
    ],
    [
      'src/kernel/a.test.ts',
      "import test from 'node:test'; import fc from 'fast-check'; import '../ledger/l.ts'",
    ],
    ['src/policy/a.ts', "import { parse } from 'yaml'; import type { Plan } from '../kernel/plan.ts'"],
    ['src/store.ts', "import type { Cell } from './kernel/cell.ts'; export type { E } from './ledger/e.ts'"],
    ['src/store/sqlite/store.ts', "import 'node:sqlite'; import '../coalesce.ts'; import '../../store.ts'"],
    ['src/store/sqlite/store.test.ts', "import '../conformance.ts'; import '../memory.ts'"],
    ['src/engine.test.ts', "import './store/memory.ts'; import './store/sqlite/store.ts'"],
    ['src/server/routes/a.test.ts', "import '../../sim/clock.ts'; import '../../store/memory.ts'"],
    ['src/cli/serve.ts', "await import('../store/sqlite/store.ts')"],
    ['bench/main.ts', "import '../src/index.ts'; import '../src/store/sqlite/store.ts'"],
  ]
  for (const [path, text] of open) {
    test(`${path} may have: ${text}`, () => assert.deepEqual(saysOf(path, text), []))
  }
})

describe('purity of kernel/ and ledger/', () => {
  const refused: readonly [text: string, says: string][] = [
    ['export const f = async () => 1', 'no async function'],
    ['export async function f() {}', 'no async function'],
    ['export const f = { async g() {} }', 'no async function'],
    ['await f()', 'no await'],
    ['for await (const x of xs) f(x)', 'no await'],
    ["const m = import('./m.ts')", 'no import(): it is asynchronous'],
    ['type F = () => Promise<number>', 'no Promise: nothing here waits'],
    ['const now = Date.now()', 'no Date: time is an argument'],
    ['const now = new Date()', 'no Date: time is an argument'],
    ['type At = Date', 'no Date: time is an argument'],
    ['const now = Temporal.Now.instant()', 'no Temporal.Now: time is an argument'],
    ['const now = performance.now()', 'no performance: time is an argument'],
    ['const r = Math.random()', 'no Math.random: chance is an argument'],
    ["const r = Math['random']()", 'no Math.random: chance is an argument'],
    ['const { random } = Math', 'no Math.random: chance is an argument'],
    ['const e = process.env', 'no process: the environment stays outside'],
    ['const e = { process }', 'no process: the environment stays outside'],
    ['const e = globalThis', 'no globalThis: the environment stays outside'],
    ['const e = import.meta.url', 'no import.meta: the environment stays outside'],
    ['const h = crypto.subtle', 'no crypto: sha256 is passed in and chance is an argument'],
    ['setTimeout(f, 1)', 'no setTimeout: nothing here waits'],
    ['console.log(1)', 'no console: input and output stay outside'],
    ['ids.sort((a, b) => a.localeCompare(b))', "no localeCompare: it depends on the machine's language"],
  ]
  for (const room of ['kernel', 'ledger']) {
    for (const [text, says] of refused) {
      test(`${room}/ may not have: ${text}`, () => {
        assert.ok(
          saysOf(`src/${room}/a.ts`, text).includes(`purity: ${says} in ${room}/`),
          `${saysOf(`src/${room}/a.ts`, text)}`,
        )
      })
    }
  }

  test('names that only look like globals are left alone', () => {
    const text =
      'const a = { Date: 1, process: 2 }; f(a.Date, a.process, Math.floor(1)); interface P { fetch: 1 }'
    assert.deepEqual(saysOf('src/kernel/a.ts', text), [])
  })

  test('other rooms and tests may know the time', () => {
    assert.deepEqual(saysOf('src/server/a.ts', 'export const f = async () => Date.now()'), [])
    assert.deepEqual(saysOf('src/kernel/a.test.ts', 'const seed = Math.random()'), [])
  })
})

describe('circles', () => {
  test('two rooms that import each other are found', () => {
    const complaints = check([
      { path: 'bench/a.ts', text: "import type { B } from '../examples/b.ts'" },
      { path: 'examples/b.ts', text: "import '../bench/c.ts'" },
    ])
    assert.deepEqual(
      complaints.map(({ message }) => message),
      ['a circle of rooms: bench → examples → bench', 'a circle of rooms: examples → bench → examples'],
    )
  })

  test('a circle around a corner is found', () => {
    const complaints = check([
      { path: 'a/a.ts', text: "import '../b/b.ts'" },
      { path: 'b/b.ts', text: "import '../c/c.ts'" },
      { path: 'c/c.ts', text: "import '../a/other.ts'" },
    ])
    assert.ok(complaints.some(({ message }) => message === 'a circle of rooms: a → b → c → a'))
  })

  test('imports inside a room and one way between rooms are no circle', () => {
    const complaints = check([
      { path: 'a/a.ts', text: "import './other.ts'; import '../b/b.ts'" },
      { path: 'a/other.ts', text: "import '../b/b.ts'" },
    ])
    assert.deepEqual(complaints, [])
  })
})

test('rooms and files that say nothing by their name are refused', () => {
  for (const path of [
    'src/utils/a.ts',
    'src/kernel/types.ts',
    'src/common/a.ts',
    'src/server/helpers/a.ts',
    'src/store/manager.ts',
    'src/service/a.ts',
  ]) {
    assert.match(saysOf(path, '').join(), /^name: /, path)
  }
})

test('a test that is skipped or stands alone is refused', () => {
  const outcomes = {
    "test.only('x', f)": 'test: no test.only(): a test runs, or it is not there',
    "describe.skip('x', f)": 'test: no describe.skip(): a test runs, or it is not there',
    "it.todo('x')": 'test: no it.todo(): a test runs, or it is not there',
    't.skip()': 'test: no t.skip(): a test runs, or it is not there',
    'rows.skip(3)': undefined,
    "const s = 'test.only('": undefined,
  }
  for (const [text, says] of Object.entries(outcomes)) {
    assert.equal(saysOf('test/a.test.ts', text)[0], says, text)
  }
})

test('length is told', () => {
  const body = (lines: number): string => `export function f() {\n${'  g()\n'.repeat(lines - 2)}}\n`
  assert.deepEqual(longOnes([{ path: 'a/a.ts', text: body(70) }]), [])
  assert.deepEqual(longOnes([{ path: 'a/a.ts', text: body(71) }]), ['a/a.ts:1 is a function of 71 lines'])
  assert.deepEqual(longOnes([{ path: 'a/a.ts', text: '\n'.repeat(401).concat('f()') }]), [
    'a/a.ts has 402 lines',
  ])
})

test('every file belongs to one room', () => {
  assert.deepEqual(
    [
      'src/units.ts',
      'src/units.test.ts',
      'src/store.ts',
      'src/store/memory.ts',
      'src/store/memory.test.ts',
    ].map(roomOf),
    ['units', 'units', 'store', 'memory', 'memory'],
  )
  assert.deepEqual(
    ['src/store/sqlite/store.ts', 'src/server/routes/a.ts', 'client/index.ts', 'src/engine.ts'].map(roomOf),
    ['sqlite', 'server', 'client', 'engine'],
  )
})
