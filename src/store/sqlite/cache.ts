import type { Cell, Key } from '../../kernel/cells.ts'

/** A cell as it was committed last, and the row it stands in. */
export interface Row {
  readonly id: number
  /** Of a request, the generation whose table has it; 0 for all other cells. */
  readonly generation: number
  readonly cell: Cell
}

/** What this process knows of an account. */
export interface Known {
  /** 0 where the account does not exist yet. */
  id: number
  /** The row id for its next new cell; 0 until it is looked up. */
  nextCell: number
  readonly rows: Map<Key, Row>
}

export interface Cache {
  get(account: string): Known | undefined
  set(account: string, known: Known): void
  /** Adds or replaces one row of an account. */
  setRow(known: Known, key: Key, row: Row): void
  delete(account: string): void
  clear(): void
  readonly size: number
}

/** Rows kept of one account: a crowd of subjects or open requests must not push everyone else out. */
const MAX_OF_ACCOUNT = 2_048

/**
 * Parsed cells of the accounts used of late, at most about `max` of them. Two maps instead of a list in order of use: an
 * account found in the old one moves to the young one; when the young one holds half the bound it becomes the old one,
 * and what nobody asked for is gone. A hit costs one lookup, where a strict order costs a delete and an insert more.
 */
export function createCache(max: number): Cache {
  let young = new Map<string, Known>()
  let old = new Map<string, Known>()
  let count = 0

  function keep(account: string, known: Known): void {
    count += 1 + known.rows.size
    if (count > max / 2) {
      old = young
      young = new Map()
      count = 1 + known.rows.size
    }
    young.set(account, known)
  }

  return {
    get(account) {
      const known = young.get(account)
      if (known !== undefined) return known
      const before = old.get(account)
      if (before === undefined) return undefined
      old.delete(account)
      keep(account, before)
      return before
    },
    set: keep,
    setRow(known, key, row) {
      if (!known.rows.has(key)) {
        if (known.rows.size >= MAX_OF_ACCOUNT) {
          const own = known.rows.get('account')
          count -= known.rows.size
          known.rows.clear()
          if (own !== undefined) known.rows.set('account', own)
        }
        count++
      }
      known.rows.set(key, row)
    },
    delete(account) {
      young.delete(account)
      old.delete(account)
    },
    get size() {
      return young.size + old.size
    },
    clear() {
      young = new Map()
      old = new Map()
      count = 0
    },
  }
}
