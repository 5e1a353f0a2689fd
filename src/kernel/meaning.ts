/** A repeated id must mean what it meant: salted hashes of what was asked tell a retry from a conflict. */
import type { RequestCell } from './cells.ts'
import type { Draft } from './draft.ts'
import { fail } from './faults.ts'

export function meaningHash(draft: Draft, salt: string, meaning: string): string {
  return draft.context.sha256(`${salt}\n${meaning}`)
}

/** Refuses a repeat with another meaning; where the salt has been erased there is nothing left to compare. */
export function requireSameMeaning(
  draft: Draft,
  known: RequestCell,
  before: string | undefined,
  meaning: string,
  first: unknown,
): void {
  if (before === undefined || known.salt === '' || before === meaningHash(draft, known.salt, meaning)) return
  fail('conflict', `request ${known.id} has been answered for something else`, {
    path: '/request_id',
    remedy: 'send what was sent first, or use a new request_id',
    first,
  })
}

/**
 * Refuses an actor that stands for one subject where the request is another's: it is not even told what was answered. A
 * request that was released before it was known, or whose person was erased, has nothing of anybody's left in it.
 */
export function requireOwn(draft: Draft, known: RequestCell): void {
  if (known.feature === '' || known.salt === '') return
  for (const [dimension, value] of Object.entries(draft.context.subject ?? {})) {
    if (known.subject[dimension] === value) continue
    fail('forbidden', `request ${known.id} is another ${dimension}'s`, {
      path: '/request_id',
      remedy: `name a request of the key's own ${dimension}`,
    })
  }
}
