/** `sluice explain` says a refusal in the words of the page of reasons. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { SAYS } from './explain.ts'

test('every reason of a refusal is said as the reference page says it', () => {
  const page = readFileSync(new URL('../../docs/reference/outcomes.md', import.meta.url), 'utf8')
  const [, reasons = ''] = page.split('## Reasons')
  const told = [...reasons.matchAll(/^\| `(\w+)` \| ([^|]+) \|/gm)].map(([, reason, says]) => [reason, says])
  const refusals = told.filter(([reason]) => reason !== 'granted' && reason !== 'granted_in_part')
  assert.deepEqual(Object.entries(SAYS), refusals)
})
