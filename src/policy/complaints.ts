/** One mistake: where it is, as a JSON pointer, what would be right, and its place in the text where there is one. */
export interface Complaint {
  readonly path: string
  readonly message: string
  readonly line?: number
  readonly column?: number
}

/** Line and column of what a JSON pointer names, both from 1. */
export type Locate = (path: string) => { readonly line: number; readonly column: number } | undefined

/** Where mistakes are told. Nothing is said where one was told at or below a path of `unless`, because it is its echo. */
export type Complain = (path: string, message: string, unless?: readonly string[]) => void

/** More complaints than this help nobody, and a document of 1 MiB can have a million. */
export const MAX_COMPLAINTS = 1000

/** `~` and `/` are escaped as RFC 6901 asks. */
export function pointer(path: string, key: string | number): string {
  return `${path}/${String(key).replaceAll('~', '~0').replaceAll('/', '~1')}`
}

/** A value as it may be quoted in a sentence: JSON, and not long. */
export function quote(value: unknown): string {
  if (Array.isArray(value)) return 'a list'
  if (typeof value === 'object' && value !== null) return 'an object'
  const text = typeof value === 'string' ? JSON.stringify(value.slice(0, 60)) : String(value)
  return text.length > 50 ? `${text.slice(0, 47)}…` : text
}

/** Gathers complaints, each with its place and none twice; told in the order of the text, where there is one. */
export function complaintList(locate: Locate = () => undefined) {
  const told = new Map<string, Complaint>()
  const isTold = (path: string): boolean => {
    return told.values().some((one) => one.path === path || one.path.startsWith(`${path}/`))
  }
  const complain: Complain = (path, message, unless = []) => {
    const key = `${path} ${message}`
    if (told.size >= MAX_COMPLAINTS || told.has(key) || unless.some(isTold)) return
    told.set(key, { path, message, ...locate(path) })
  }
  return { complain, all: (): readonly Complaint[] => [...told.values()].sort(byPlace) }
}

function byPlace(a: Complaint, b: Complaint): number {
  return (a.line ?? 0) - (b.line ?? 0) || (a.column ?? 0) - (b.column ?? 0)
}
