// No list is kept twice without a test: the reference pages say what the code says, in its order.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { after, before, describe, test } from 'node:test'
import { ERRORS } from '../errors.ts'
import { memoryStore } from '../store/memory.ts'
import { createWorld, type World } from './fixtures/world.ts'
import { METRICS } from './metrics.ts'
import { REMEDIES } from './remedies.ts'

const page = (name: string) =>
  readFileSync(new URL(`../../docs/reference/${name}.md`, import.meta.url), 'utf8')

/** The rows of the table under a heading. */
function rowsUnder(text: string, heading: string): readonly string[] {
  const [, after = ''] = text.split(`\n## ${heading}\n`)
  const [section = ''] = after.split('\n## ')
  return section
    .split('\n')
    .filter((line) => line.startsWith('| '))
    .slice(2)
}

interface Schema {
  readonly $ref?: string
  readonly type?: string | readonly string[]
  readonly properties?: Readonly<Record<string, Schema>>
  readonly items?: Schema
  readonly required?: readonly string[]
}
interface Operation {
  readonly description?: string
  readonly summary: string
  readonly requestBody?: { readonly content: Readonly<Record<string, { readonly schema: Schema }>> }
  readonly responses: Readonly<
    Record<string, { readonly content: Readonly<Record<string, { readonly schema: Schema }>> }>
  >
}

let world: World
let contract: {
  paths: Record<string, Record<string, Operation>>
  components: { schemas: Record<string, Schema> }
}
before(async () => {
  world = await createWorld({ storeOf: (now) => memoryStore({ now }) })
  contract = (await world.get('/openapi.json')).body
})
after(() => world.close())

const jsonOf = (content: Readonly<Record<string, { readonly schema: Schema }>> = {}) =>
  content['application/json']?.schema
const nameOf = ({ $ref }: Schema) => $ref?.split('/').at(-1)
/** `{ id, plan, metadata? }`, from a schema. */
const fieldsOf = ({ properties = {}, required = [] }: Schema): string =>
  `\`{ ${Object.keys(properties)
    .map((name) => (required.includes(name) ? name : `${name}?`))
    .join(', ')} }\``

function answerOf(schema: Schema | undefined): string {
  if (schema === undefined) return 'text'
  const item = schema.properties?.items?.items
  if (item !== undefined) return `list of ${nameOf(item)}`
  return nameOf(schema) ?? (schema.properties === undefined ? 'the contract' : fieldsOf(schema))
}
function bodyOf(schema: Schema | undefined): string {
  if (schema === undefined) return ''
  return nameOf(schema) ?? fieldsOf(schema)
}

describe('docs/reference/http.md', () => {
  test('has every call, with its roles, its body and its answer', () => {
    const calls = Object.entries(contract.paths).flatMap(([path, operations]) =>
      Object.entries(operations).map(([method, { description, summary, requestBody, responses }]) => {
        const roles = description?.replace(/^Roles: (.*)\.$/, '$1') ?? ''
        const answer = answerOf(jsonOf(responses[200]?.content))
        return `| \`${method.toUpperCase()} ${path}\` | ${summary} | ${roles} | ${bodyOf(jsonOf(requestBody?.content))} | ${answer} |`
      }),
    )
    assert.deepEqual(rowsUnder(page('http'), 'Calls'), calls)
  })

  test('has every body and answer, with its fields', () => {
    const shapes = Object.entries(contract.components.schemas)
      .filter(([name]) => !name.endsWith('Operation'))
      .map(([name, schema]) => `| ${name} | ${fieldsOf(schema)} |`)
    assert.deepEqual(rowsUnder(page('http'), 'Shapes'), shapes)
  })
})

test('docs/reference/errors.md has every error in the order of the list', () => {
  const errors = Object.entries(ERRORS).map(
    ([code, { status, says }]) =>
      `| \`${code}\` | ${status} | ${says} | ${REMEDIES[code as keyof typeof ERRORS][1]} |`,
  )
  assert.deepEqual(rowsUnder(page('errors'), 'The list'), errors)
})

test('docs/reference/metrics.md has every metric in the order of the list', () => {
  const metrics = METRICS.map(
    ({ name, type, labels, help }) =>
      `| \`${name}\` | ${type} | ${labels.map((label) => `\`${label}\``).join(', ')} | ${help} |`,
  )
  assert.deepEqual(rowsUnder(page('metrics'), 'The list'), metrics)
})

test('/metrics tells each metric under its name, type and labels, in the text format 0.0.4', async () => {
  await world.ask('PUT', '/v1/policy', {
    body: 'features: { a: { rate_card: [{ per_unit: { s: 1 } }] } }\nplans: { p: { waterfall: [{ overage: { limit: "9", per: day } }] } }\n',
    headers: { 'if-match': '"0"', 'content-type': 'application/yaml' },
  })
  await world.post('/v1/accounts', { id: 'a', plan: 'p' })
  for (const [request_id, cost] of [
    ['r1', '1.5'],
    ['r2', '2'],
    ['r3', '99'],
  ]) {
    await world.post('/v1/reserve', { request_id, account: 'a', feature: 'a', cost })
    await world.post('/v1/settle', { request_id, account: 'a', cost })
  }
  await world.post('/v1/reserve', { request_id: 'open', account: 'a', feature: 'a', cost: '1' })
  const { status, text, headers } = await world.get('/metrics')
  assert.deepEqual([status, headers['content-type']], [200, 'text/plain; version=0.0.4; charset=utf-8'])
  const families = new Map<string, { type: string; lines: string[] }>()
  let current = { type: '', lines: [] as string[] }
  for (const line of text.trimEnd().split('\n')) {
    const [, kind, name = '', rest = ''] = /^# (HELP|TYPE) (\S+) (.*)$/.exec(line) ?? []
    if (kind === 'TYPE') {
      current = { type: rest, lines: [] }
      families.set(name, current)
    } else if (kind === undefined) {
      assert.match(line, /^[a-z_]+(\{[a-z_]+="[^"\n]*"(,[a-z_]+="[^"\n]*")*\})? -?\d+(\.\d+)?(e[-+]\d+)?$/)
      current.lines.push(line)
    }
  }
  assert.deepEqual(
    [...families.keys()],
    METRICS.map(({ name }) => name),
  )
  for (const { name, type, labels } of METRICS) {
    const family = families.get(name)
    assert.equal(family?.type, type)
    for (const line of family?.lines ?? []) {
      const names = [...line.matchAll(/([a-z_]+)="/g)]
        .map((match) => match[1])
        .filter((label) => label !== 'le')
      assert.deepEqual(names, labels, line)
    }
  }
  assert.match(text, /sluice_decisions_total\{operation="reserve",outcome="allow",reason="granted"\} 3\n/)
  assert.match(text, /sluice_open_holds 1\n/)
  assert.match(
    text,
    /sluice_decisions_total\{operation="reserve",outcome="deny",reason="overage_spent"\} 1\n/,
  )
  assert.match(text, /sluice_charged_cu_total\{source="overage"\} 3\.5\n/)
  assert.match(text, /sluice_http_requests_total\{method="POST",route="\/v1\/reserve",status="200"\} 4\n/)
  assert.match(
    text,
    /sluice_http_request_seconds_bucket\{method="POST",route="\/v1\/reserve",le="\+Inf"\} 4\n/,
  )
  assert.match(text, /sluice_commit_operations_bucket\{le="1"\} \d+\n/)
})
