import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { BESIDE_FIELDS } from '../src/gateway/beside/config.ts'
import { REASONS } from '../src/kernel/reasons.ts'
import { GRANT_KINDS } from '../src/ledger/grants.ts'
import { policyJsonSchema } from '../src/policy/schema.ts'

const page = (name: string): string =>
  readFileSync(new URL(`../docs/reference/${name}`, import.meta.url), 'utf8')

/** The words in the first column of the table under a heading. */
function firstColumn(text: string, heading: string): string[] {
  const section = text.split(`${heading}\n`)[1]?.split(/\n#+ /)[0] ?? ''
  return [...section.matchAll(/^\| `([^`]+)` \|/gm)].map((match) => match[1] as string)
}

test('the page of outcomes lists every reason in the order of the code', () => {
  assert.deepEqual(firstColumn(page('outcomes.md'), '## Reasons'), [...REASONS])
})

test('the page of the policy names every field of the schema', () => {
  const text = page('policy.md')
  const fields = new Set<string>()
  collectFields(policyJsonSchema(), fields)
  const missing = [...fields].filter((field) => !text.includes(`\`${field}\``))
  assert.deepEqual(missing, [])
})

test('the page of the policy names every kind of grant', () => {
  for (const kind of GRANT_KINDS) assert.ok(page('policy.md').includes(`\`${kind}\``), kind)
})

test('the page of the gateway names every field about other proxies', () => {
  const text = page('gateway.md')
  const fields = new Set<string>()
  collectFields({ properties: BESIDE_FIELDS }, fields)
  const missing = [...fields].filter((field) => !text.includes(`\`${field}\``))
  assert.deepEqual(missing, [])
})

function collectFields(schema: unknown, into: Set<string>): void {
  if (typeof schema !== 'object' || schema === null) return
  if ('properties' in schema && typeof schema.properties === 'object' && schema.properties !== null) {
    for (const name of Object.keys(schema.properties)) if (name !== '$schema') into.add(name)
  }
  for (const inner of Object.values(schema)) collectFields(inner, into)
}
