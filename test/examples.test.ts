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
