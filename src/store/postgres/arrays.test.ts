import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import fc from 'fast-check'
import { Client } from 'pg'
import { type TestDatabase, testDatabase } from '../../../test/postgres.ts'
import { arrayOf, type Element } from './arrays.ts'

let database: TestDatabase
let client: Client
before(async () => {
  database = await testDatabase()
  client = new Client({ connectionString: database.url })
  await client.connect()
})
after(async () => {
  await client.end()
  await database.drop()
})

/** What PostgreSQL reads, each element as text. */
async function readBack(element: Element, values: readonly (string | number | null)[]): Promise<unknown[]> {
  const sql = `select v::text as v from unnest($1::${element}[]) with ordinality as u(v, n) order by n`
  const { rows } = await client.query(sql, [arrayOf(element, values)])
  return rows.map(({ v }) => v)
}

test('texts of any kind come back as they were sent', async () => {
  const texts = fc.array(
    fc.option(fc.string({ unit: 'grapheme', maxLength: 40 }).map((text) => text.replaceAll('\0', ''))),
  )
  await fc.assert(
    fc.asyncProperty(texts, async (values) => assert.deepEqual(await readBack('text', values), values)),
    { numRuns: 100 },
  )
})

test('numbers come back to the ends of their ranges', async () => {
  const ranges = {
    bigint: [Number.MIN_SAFE_INTEGER, -1, 0, null, 1, Number.MAX_SAFE_INTEGER],
    integer: [-(2 ** 31), null, 0, 2 ** 31 - 1],
    smallint: [-(2 ** 15), 0, 2 ** 15 - 1],
  } as const
  for (const [element, values] of Object.entries(ranges))
    assert.deepEqual(
      await readBack(element as Element, values),
      values.map((value) => (value === null ? null : String(value))),
    )
  assert.deepEqual(await readBack('bigint', ['-9223372036854775808', '9223372036854775807']), [
    '-9223372036854775808',
    '9223372036854775807',
  ])
})

test('an array without elements is one', async () => {
  for (const element of ['text', 'bigint', 'integer', 'smallint'] as const)
    assert.deepEqual(await readBack(element, []), [])
})
