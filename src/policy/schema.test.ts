import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import fc from 'fast-check'
import { Value } from 'typebox/value'
import { parsePolicy } from './parse.ts'
import { PolicySchema, policyJsonSchema } from './schema.ts'
import { checkShape, type Shape } from './shape.ts'

const example = parsePolicy(
  readFileSync(new URL('../../examples/codex-and-sora.yaml', import.meta.url), 'utf8'),
).document
const shape = PolicySchema as unknown as Shape

function complaints(value: unknown): string[] {
  const told: string[] = []
  checkShape(shape, value, '', (path, message) => void told.push(`${path} ${message}`))
  return told
}

/** Every object and list in a document, so that a test can damage one of them. */
function nodes(value: unknown): object[] {
  return typeof value === 'object' && value !== null ? [value, ...Object.values(value).flatMap(nodes)] : []
}

test('the walk over the schema and TypeBox agree on what is valid', () => {
  const values = fc.oneof(
    fc.constantFrom<unknown>(
      '5h',
      'month',
      '12.5',
      '-1',
      'constructor',
      'overage',
      '',
      null,
      true,
      0,
      -1,
      1.5,
      3000,
      [],
      {},
      { per: '1d' },
      ['free'],
      '0s',
      '*',
    ),
    fc.jsonValue({ maxDepth: 1 }),
  )
  const keys = fc.constantFrom(
    'features',
    'name',
    'by',
    'rate',
    'budget',
    'credits',
    'overage',
    'limit',
    'per',
    'when',
    'A b',
    '7',
    '__x',
    'max',
  )
  const damage = fc.record({
    at: fc.nat(),
    which: fc.nat(),
    how: fc.constantFrom('set', 'delete', 'add'),
    key: keys,
    value: values,
  })
  let refused = 0
  fc.assert(
    fc.property(fc.array(damage, { minLength: 1, maxLength: 2 }), (damages) => {
      const document = structuredClone(example)
      for (const { at, which, how, key, value } of damages) {
        const all = nodes(document)
        const node = all[at % all.length] as Record<string, unknown>
        const own = Object.keys(node)
        const chosen = own[which % own.length] ?? key
        if (how === 'add' && !Array.isArray(node)) node[key] = structuredClone(value)
        else if (how === 'delete' && !Array.isArray(node)) delete node[chosen]
        else node[chosen] = structuredClone(value)
      }
      const told = complaints(document)
      if (told.length > 0) refused += 1
      assert.equal(told.length === 0, Value.Check(PolicySchema, document), told.join('\n'))
    }),
    { numRuns: 400 },
  )
  assert.ok(refused > 50, 'the damage must be felt')
})

test('the JSON Schema carries descriptions and none of the keywords of our own', () => {
  const schema = policyJsonSchema()
  const text = JSON.stringify(schema)
  assert.equal(schema.$schema, 'https://json-schema.org/draft/2020-12/schema')
  assert.doesNotMatch(text, /"(expects|expectsKey|chosenBy)":/)
  const bare: string[] = []
  const walk = (node: unknown, path: string): void => {
    if (typeof node !== 'object' || node === null) return
    for (const [name, field] of Object.entries((node as { properties?: object }).properties ?? {})) {
      if (!('description' in field)) bare.push(`${path}/${name}`)
    }
    for (const [key, value] of Object.entries(node)) walk(value, `${path}/${key}`)
  }
  walk(schema, '')
  assert.deepEqual(bare, [], 'every field is described')
})

test('the JSON Schema alone accepts the example and refuses what it does not know', () => {
  const schema = policyJsonSchema()
  assert.ok(Value.Check(schema as never, example))
  assert.ok(!Value.Check(schema as never, { ...(example as object), plan: {} }))
})
