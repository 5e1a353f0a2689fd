import type { Cell, Key } from '../../kernel/cells.ts'

/**
 * Cells as they were parsed or written last, by their text. Another node may have written since, so that each batch reads the
 * text; where it is the one that is known here, it need not be parsed again.
 */
export interface Parsed {
  read(account: string, key: Key, text: string): Cell
  /** What was read or written here last; another node may have written since. */
  peek(account: string, key: Key): Cell | undefined
  /** To be told once the commit stands: until then nobody reads this text. */
  keep(account: string, key: Key, text: string, cell: Cell): void
}

interface Known {
  readonly text: string
  readonly cell: Cell
}

/** Two maps in place of a list in order of use: what nobody asked for while one of them filled up is forgotten. */
export function createParsed(max: number): Parsed {
  let young = new Map<string, Known>()
  let old = new Map<string, Known>()

  function put(place: string, known: Known): void {
    if (young.size >= max / 2) {
      old = young
      young = new Map()
    }
    young.set(place, known)
  }
  return {
    read(account, key, text) {
      const place = `${account}\n${key}`
      const known = young.get(place) ?? old.get(place)
      if (known?.text === text) {
        if (!young.has(place)) put(place, known)
        return known.cell
      }
      const cell = JSON.parse(text) as Cell
      put(place, { text, cell })
      return cell
    },
    peek(account, key) {
      const place = `${account}\n${key}`
      return (young.get(place) ?? old.get(place))?.cell
    },
    keep(account, key, text, cell) {
      put(`${account}\n${key}`, { text, cell })
    },
  }
}
