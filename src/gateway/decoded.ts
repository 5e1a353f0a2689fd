/** Answers that are packed although they were asked for as they are: what is metered is read, so they are unpacked here. */
import { pipeline, type Readable, type Transform } from 'node:stream'
import { createBrotliDecompress, createUnzip, createZstdDecompress } from 'node:zlib'

const PACKED: Readonly<Record<string, () => Transform>> = {
  gzip: createUnzip,
  'x-gzip': createUnzip,
  deflate: createUnzip,
  br: createBrotliDecompress,
  zstd: createZstdDecompress,
}

/** Undefined where it is packed in a way that is not known here. */
export function decoded(body: Readable, encoding: string | undefined): Readable | undefined {
  const name = (encoding ?? '').trim().toLowerCase()
  if (name === '' || name === 'identity') return body
  const unpack = Object.hasOwn(PACKED, name) ? PACKED[name]?.() : undefined
  // Each of both ends with the other; what goes wrong is told to whoever reads.
  return unpack === undefined ? undefined : pipeline(body, unpack, () => {})
}
