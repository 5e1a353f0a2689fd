/** A repeated id must mean what it meant: salted hashes of what was asked tell a retry from a conflict. */
import type { RequestCell } from './cells.ts'
import type { Draft } from './draft.ts'
import { fail } from './faults.ts'

/** 128 bits of the hash tell meanings apart. */
export function meaningHash(draft: Draft, salt: string, meaning: string): string {
  return draft.context.sha256(`${salt}\n${meaning}`).slice(0, 32)
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
