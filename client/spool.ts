import type { Operation } from '../src/wire.ts'

/** What has happened and could not be told yet, in order. */
export interface Spool {
  readonly size: number
  add(operation: Operation): void
  /** The oldest, at most so many. */
  first(count: number): readonly Operation[]
  /** The oldest so many have been told. */
  drop(count: number): void
  /** The client that had it has been closed. */
  close?(): void
}

/** Lost with the process. `@sluice/client/node` has one that is not. */
export function memorySpool(kept: readonly Operation[] = []): Spool {
  const operations: Operation[] = [...kept]
  let from = 0
  return {
    get size() {
      return operations.length - from
    },
    add(operation) {
      operations.push(operation)
    },
    first: (count) => operations.slice(from, from + count),
    drop(count) {
      from += count
      if (from < operations.length / 2) return
      operations.splice(0, from)
      from = 0
    },
  }
}
