/**
 * Arrays as PostgreSQL takes them in binary (`array_recv`): a head, then each element's length and bytes. As text each quote in
 * a cell would be escaped here and read back there.
 */
export type Element = 'text' | 'bigint' | 'integer' | 'smallint'

/** Object ids and widths of the types (`pg_type`). */
const TYPES: Readonly<Record<Element, { readonly oid: number; readonly width: number }>> = {
  text: { oid: 25, width: 0 },
  bigint: { oid: 20, width: 8 },
  integer: { oid: 23, width: 4 },
  smallint: { oid: 21, width: 2 },
}
const HEAD = 20

export function arrayOf(element: Element, values: readonly (string | number | null)[]): Buffer {
  const { oid, width } = TYPES[element]
  let size = HEAD
  let nulls = 0
  for (const value of values) {
    if (value === null) nulls = 1
    else size += width === 0 ? Buffer.byteLength(value as string) : width
    size += 4
  }
  const buffer = Buffer.allocUnsafe(size)
  buffer.writeInt32BE(values.length === 0 ? 0 : 1, 0)
  buffer.writeInt32BE(nulls, 4)
  buffer.writeInt32BE(oid, 8)
  buffer.writeInt32BE(values.length, 12)
  buffer.writeInt32BE(1, 16)
  let at = HEAD
  for (const value of values) {
    if (value === null) {
      at = buffer.writeInt32BE(-1, at)
    } else if (width === 0) {
      const length = buffer.write(value as string, at + 4)
      buffer.writeInt32BE(length, at)
      at += 4 + length
    } else {
      at = buffer.writeInt32BE(width, at)
      if (width === 8) at = buffer.writeBigInt64BE(BigInt(value), at)
      else
        at = width === 4 ? buffer.writeInt32BE(value as number, at) : buffer.writeInt16BE(value as number, at)
    }
  }
  // An array without elements has no dimensions.
  return values.length === 0 ? buffer.subarray(0, 12) : buffer
}
