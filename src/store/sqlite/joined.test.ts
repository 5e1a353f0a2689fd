import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { CommitOutcome } from '../coalesce.ts'
import type { Failure } from './failure.ts'
import { writeJoined } from './joined.ts'
import type { Rows } from './rows.ts'

/** Writes batches of one letter each on a disk that fails for what `fails` says. */
function written(letters: string, fails: (joined: string) => CommitOutcome | undefined = () => undefined) {
  const commits: string[] = []
  const write = (rows: Rows): void => {
    const outcome = fails(rows.join(''))
    if (outcome !== undefined) throw outcome
    commits.push(rows.join(''))
  }
  const failureOf = (error: unknown): Failure => ({
    outcome: error as CommitOutcome,
    message: '',
    remedy: '',
  })
  const outcomes = writeJoined(
    [...letters].map((row) => [row]),
    write,
    failureOf,
  )
  return { commits, outcomes: outcomes.map((failure) => failure?.outcome ?? 'stands') }
}

describe('batches that waited for each other', () => {
  it('go together', () => {
    assert.deepEqual(written('abc'), { commits: ['abc'], outcomes: ['stands', 'stands', 'stands'] })
  })

  it('are tried alone where together they are refused, and what may build on the culprit is passed over', () => {
    assert.deepEqual(
      written('abxd', (joined) => (joined.includes('x') ? 'refused' : undefined)),
      { commits: ['a', 'b'], outcomes: ['stands', 'stands', 'refused', 'passed_over'] },
    )
    assert.deepEqual(
      written('x', () => 'refused'),
      { commits: [], outcomes: ['refused'] },
    )
    assert.deepEqual(
      written('abc', (joined) =>
        joined.length > 1 ? 'refused' : joined === 'b' ? 'unavailable' : undefined,
      ),
      { commits: ['a'], outcomes: ['stands', 'unavailable', 'passed_over'] },
    )
  })

  it('share the failure of a disk that takes nothing, and of one that does not answer', () => {
    for (const outcome of ['unavailable', 'unknown'] as const) {
      assert.deepEqual(
        written('abc', () => outcome),
        { commits: [], outcomes: [outcome, outcome, outcome] },
      )
    }
  })
})
