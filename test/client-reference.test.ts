/** `docs/reference/client.md` tells all that the client exports, as the code has it. `SLUICE_WRITE=1` writes its generated part. */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { doorsTold, referenceText } from './client-reference.ts'
import { ROOT } from './pack.ts'

const PAGE = join(ROOT, 'docs/reference/client.md')
const MARK = '<!-- From here on the page is made from the code, word for word. -->\n'
/** Of the platform and its language, and of the packages that a door is for. */
const FOREIGN =
  /^(AbortSignal|AsyncIterable|Error|Omit|Parameters|Partial|Pick|Promise|PromiseLike|ReadableStream|Readonly|Record|Request|Response|LanguageModelV3\w*)$/

test('the page has every export of every door, with its signature and its docstring', () => {
  const [before = '', found = ''] = readFileSync(PAGE, 'utf8').split(MARK)
  const wanted = `\n${referenceText(doorsTold())}`
  if (process.env.SLUICE_WRITE !== undefined) writeFileSync(PAGE, `${before}${MARK}${wanted}`)
  else assert.equal(found, wanted, 'run SLUICE_WRITE=1 node --test test/client-reference.test.ts')
})

test('the page has what the doors export at run time', async () => {
  for (const { name, exports } of doorsTold()) {
    const door = name.slice('@sluice/client'.length) || '/index'
    const values = Object.keys(await import(join(ROOT, `client${door}.ts`)))
    const told = exports.map((one) => one.name)
    assert.deepEqual(
      values.filter((value) => !told.includes(value)),
      [],
      name,
    )
  }
})

test('every export of the client says in words what it is, and what it answers', () => {
  const own = doorsTold()
    .flatMap(({ exports }) => exports)
    .filter(({ file }) => file.startsWith('client/'))
  assert.deepEqual(
    own.filter(({ doc }) => doc === '').map(({ file, name }) => `${file} ${name}`),
    [],
  )
  assert.deepEqual(
    own.filter(({ isUntyped }) => isUntyped).map(({ file, name }) => `${file} ${name}`),
    [],
  )
})

test('every type that an export names can be imported', () => {
  const doors = doorsTold()
  const [main] = doors
  const missing = doors.flatMap(({ name: door, exports }) => {
    const known = new Set([...(main?.exports ?? []), ...exports].map(({ name }) => name))
    return exports.flatMap(({ name, names }) =>
      names.filter((one) => !known.has(one) && !FOREIGN.test(one)).map((one) => `${door} ${name}: ${one}`),
    )
  })
  assert.deepEqual(missing, [])
})
