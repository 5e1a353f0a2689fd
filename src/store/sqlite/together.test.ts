import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { SluiceError } from '../../errors.ts'
import { CommitError, type CommitOutcome } from '../coalesce.ts'
import type { Rows } from './rows.ts'
import { together } from './together.ts'

const failure = (outcome: CommitOutcome) => new CommitError(outcome, new SluiceError('internal', outcome))

/** A disk that takes its time, and fails for what `fails` says. */
function disk(fails: (rows: Rows) => CommitOutcome | undefined = () => undefined) {
  const written: string[] = []
  const write = async (rows: Rows): Promise<void> => {
    const asked = rows.join('')
    await new Promise((resolve) => setImmediate(resolve))
    const outcome = fails(rows)
    if (outcome !== undefined) throw failure(outcome)
    written.push(asked)
  }
  return { written, commit: together(write) }
}
const outcomes = (settled: readonly PromiseSettledResult<void>[]): string[] =>
  settled.map((one) => (one.status === 'fulfilled' ? 'stands' : (one.reason as CommitError).outcome))

describe('batches that come while others are being written', () => {
  it('wait, and go together', async () => {
    const { written, commit } = disk()
    await Promise.all(['a', 'b', 'c', 'd'].map((row) => commit([row])))
    await commit(['e'])
    assert.deepEqual(written, ['a', 'bcd', 'e'])
  })

  it('are tried alone where together they are refused, and what may build on the culprit is passed over', async () => {
    const { written, commit } = disk((rows) => (rows.includes('bad') ? 'refused' : undefined))
    const joined = ['a', 'b', 'bad', 'd'].map((row) => commit([row]))
    await joined[1]
    const settled = await Promise.allSettled([...joined, commit(['e'])])
    assert.deepEqual(outcomes(settled), ['stands', 'stands', 'refused', 'passed_over', 'passed_over'])
    await commit(['f'])
    assert.deepEqual(written, ['a', 'b', 'f'])
  })

  it('share the failure of a disk that takes nothing, and of one that does not answer', async () => {
    for (const outcome of ['unavailable', 'unknown'] as const) {
      const { written, commit } = disk((rows) => (rows.includes('b') ? outcome : undefined))
      const joined = ['a', 'b', 'c'].map((row) => commit([row]))
      await joined[0]
      await new Promise((resolve) => process.nextTick(resolve))
      const settled = await Promise.allSettled([...joined, commit(['behind'])])
      assert.deepEqual(outcomes(settled), ['stands', outcome, outcome, 'passed_over'])
      await commit(['d'])
      assert.deepEqual(written, ['a', 'd'])
    }
  })
})
