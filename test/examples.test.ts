import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { test } from 'node:test'
import { promisify } from 'node:util'

test('the embedded example holds, charges and audits as it says', async () => {
  const file = new URL('../examples/embedded.ts', import.meta.url).pathname
  const { stdout } = await promisify(execFile)(process.execPath, [file])
  assert.deepEqual(stdout.trim().split('\n'), [
    'held 1.4 CU: 1 from allowance:included, 0.4 from grant:order-1',
    'charged 1.2 CU, returned 0.2',
    'credits left: 9.8',
    'the books disagree in 0 places',
  ])
})

test('the demonstration of the gateway cuts, refuses, goes on with credits, and leaves clean books', async () => {
  const file = new URL('../examples/gateway-demo.ts', import.meta.url).pathname
  const { stdout } = await promisify(execFile)(process.execPath, [file, '--fast'])
  const told = [
    /her bound/,
    /granted: output_tokens=\d+/,
    /Granted in part/,
    /429 +insufficient_quota: Not allowed: allowance_spent/,
    /from grant order-1/,
    /It cost [\d.]+ CU.*from the allowance included/,
    /The books disagree in 0 places/,
  ]
  let from = 0
  for (const one of told) {
    const found = one.exec(stdout.slice(from))
    assert.ok(found !== null, `${one} does not come in its turn in:\n${stdout}`)
    from += found.index
  }
  assert.ok(stdout.split('\n').length < 100, stdout)
})
