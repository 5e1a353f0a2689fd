import { type Complain, pointer } from './complaints.ts'

const MAX_DEPTH = 32
const MAX_NODES = 500_000

/**
 * A copy of a value as JSON would carry it, for policies that are written in TypeScript or arrive parsed. Properties that
 * are `undefined` are absent. Complains of what JSON does not have, of circles, and of what is too deep or too large.
 */
export function plainCopy(value: unknown, complain: Complain): unknown {
  let nodes = 0
  const open = new Set<object>()

  const copy = (item: unknown, path: string): unknown => {
    nodes += 1
    if (nodes > MAX_NODES) return nodes === MAX_NODES + 1 ? complain('', 'is too large') : undefined
    if (item === null || typeof item === 'string' || typeof item === 'boolean') return item
    if (typeof item === 'number' && Number.isFinite(item)) return item
    if (typeof item !== 'object' || !isData(item)) {
      return complain(
        path,
        'must be a value that JSON has: text, a number, true, false, null, a list or a plain object',
      )
    }
    if (open.has(item)) return complain(path, 'must not contain itself')
    if (open.size >= MAX_DEPTH) return complain(path, `must not be nested deeper than ${MAX_DEPTH}`)
    open.add(item)
    const plain = Array.isArray(item)
      ? Array.from(item, (entry, index) => copy(entry, pointer(path, index)))
      : fields(item, path)
    open.delete(item)
    return plain
  }

  const fields = (item: object, path: string): unknown => {
    const plain: Record<string, unknown> = {}
    for (const [key, entry] of Object.entries(item)) {
      if (key === '__proto__') complain(path, 'must not have a key `__proto__`')
      else if (entry !== undefined) plain[key] = copy(entry, pointer(path, key))
    }
    return plain
  }
  return copy(value, '')
}

/** Lists and plain objects; not dates, maps, or instances of classes. */
function isData(item: object): boolean {
  if (Array.isArray(item)) return true
  const prototype: unknown = Object.getPrototypeOf(item)
  return (
    prototype === null ||
    prototype === Object.prototype ||
    Object.getPrototypeOf(prototype as object) === null
  )
}
