/**
 * Changing one field of a record by replacing the record. Cells share with what they were copied from all that a step
 * did not change: nothing is copied in advance, and what a store keeps in memory stays where it is.
 */
type Records<T> = Readonly<Record<string, T>>

export function withField<T>(record: Records<T>, name: string, value: T): Records<T> {
  return { ...record, [name]: value }
}

export function withoutField<T>(record: Records<T>, name: string): Records<T> {
  if (record[name] === undefined) return record
  const { [name]: _, ...rest } = record
  return rest
}
