/** Throws when something that must be true is not: a defect in Sluice, never a caller's mistake. */
export function assert(condition: boolean, message: string): asserts condition {
  if (!condition) throw new AssertionError(message)
}

/** Narrows away `undefined` and `null`, where their presence would be a defect. */
export function present<T>(value: T | undefined | null, message: string): T {
  if (value === undefined || value === null) throw new AssertionError(message)
  return value
}

/** Marks the branch of a switch that the types already exclude. */
export function never(value: never): never {
  throw new AssertionError(`unexpected value ${String(value)}`)
}

export class AssertionError extends Error {
  override readonly name = 'AssertionError'
}
