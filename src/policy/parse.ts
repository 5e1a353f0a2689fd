/**
 * Text to data. YAML 1.2 and its subset JSON, and of YAML only what JSON can say: the policy that is stored, hashed and
 * compared must mean the same to every reader.
 */
import {
  type Document,
  isAlias,
  isMap,
  isScalar,
  isSeq,
  LineCounter,
  type Node,
  type Pair,
  parseDocument,
  type Scalar,
  visit,
} from 'yaml'
import { SluiceError } from '../errors.ts'
import { type Complain, type Complaint, complaintList, type Locate, pointer, quote } from './complaints.ts'
import type { Written } from './rates.ts'

export const MAX_POLICY_BYTES = 1024 * 1024
const MAX_DEPTH = 32
/** Nodes after aliases are expanded. A policy of 1 MiB without aliases has fewer. */
const MAX_NODES = 500_000
const MAX_ALIASES = 1000

export interface ParsedPolicy {
  /** Plain JSON data; what it means has not been checked. */
  readonly document: unknown
  readonly locate: Locate
  /** How a number stands in the text. */
  readonly written: Written
}

/**
 * Reads a policy's text, at most 1 MiB. Throws `policy_invalid` with every complaint: syntax, duplicate keys, tags, values
 * that JSON does not have, aliases in excess or in a circle.
 */
export function parsePolicy(text: string): ParsedPolicy {
  const { parsed, complaints } = tryParse(text)
  if (parsed === undefined) throw invalid(complaints)
  return parsed
}

/** The one error of this room, with its complaints. */
export function invalid(complaints: readonly Complaint[]): SluiceError {
  const first = complaints[0]
  const where = first === undefined || first.path === '' ? '' : `${first.path} `
  const more = complaints.length > 1 ? ` (and ${complaints.length - 1} more)` : ''
  const remedy =
    'Correct what the complaints name; `sluice policy check FILE` lists them with line and column.'
  return new SluiceError(
    'policy_invalid',
    `The policy is not valid: ${where}${first?.message ?? ''}${more}`,
    { complaints, remedy },
  )
}

/** As `parsePolicy`, with the complaints as a value. */
export function tryParse(text: string): {
  readonly parsed?: ParsedPolicy
  readonly complaints: readonly Complaint[]
} {
  const whole = complaintList()
  if (text.length > MAX_POLICY_BYTES || new TextEncoder().encode(text).length > MAX_POLICY_BYTES) {
    whole.complain('', 'must be at most 1 MiB of text')
    return { complaints: whole.all() }
  }
  const lines = new LineCounter()
  const at = (offset: number | undefined) => {
    if (offset === undefined) return undefined
    const { line, col } = lines.linePos(offset)
    return line === 0 ? undefined : { line, column: col }
  }
  // Duplicate keys are found below: the parser's own search compares each key with all others.
  const doc = parseDocument(text, {
    lineCounter: lines,
    schema: 'core',
    version: '1.2',
    uniqueKeys: false,
    prettyErrors: false,
    // Not 'silent', which would also swallow a second document.
    logLevel: 'error',
  })
  const problem = doc.errors[0] ?? doc.warnings[0]
  if (problem !== undefined) {
    // After the first mistake in syntax the others are mostly its echo.
    return {
      complaints: [{ path: '', message: `must be YAML or JSON: ${syntax(problem)}`, ...at(problem.pos[0]) }],
    }
  }
  const targets = aliasTargets(doc)
  const find = finder(doc, targets)
  const locate: Locate = (path) => at(find(path).place?.range?.[0])
  const found = complaintList(locate)
  const document = convert(doc, targets, found.complain)
  const complaints = found.all()
  const written: Written = (path) => find(path).scalar?.source
  return complaints.length > 0
    ? { complaints }
    : { parsed: { document: wholeTexts(document), locate, written }, complaints }
}

/** The parser cuts names out of the policy's text: as pieces of it they would be slow to write (`texts.ts`), and keep it alive. */
function wholeTexts(document: unknown): unknown {
  return JSON.parse(JSON.stringify(document))
}

/** The parser's own words, but where it ran out of stack. */
function syntax(problem: { readonly code: string; readonly message: string }): string {
  return problem.code === 'RESOURCE_EXHAUSTION' ? `it is nested deeper than ${MAX_DEPTH}` : problem.message
}

/** What each alias stands for, in one pass: resolving them one by one searches the document each time. */
function aliasTargets(doc: Document.Parsed): ReadonlyMap<unknown, Node> {
  const anchors = new Map<string, Node>()
  const targets = new Map<unknown, Node>()
  visit(doc, {
    Node: (_, node) => {
      const target = isAlias(node) ? anchors.get(node.source) : undefined
      if (target !== undefined) targets.set(node, target)
      else if (!isAlias(node) && node.anchor !== undefined) anchors.set(node.anchor, node as Node)
    },
  })
  return targets
}

/** Turns the tree into plain data. Recursion is bounded, because the parser's own tree can be deeper than the stack. */
function convert(doc: Document.Parsed, targets: ReadonlyMap<unknown, Node>, complain: Complain): unknown {
  let nodes = 0
  let aliases = 0
  const open = new Set<unknown>()

  const walk = (node: unknown, path: string, depth: number): unknown => {
    nodes += 1
    if (nodes > MAX_NODES)
      return nodes === MAX_NODES + 1 ? complain('', 'is too large once its aliases are expanded') : undefined
    if (depth > MAX_DEPTH) return complain(path, `must not be nested deeper than ${MAX_DEPTH}`)
    if (isAlias(node)) return follow(targets.get(node), node.source, path, depth)
    if (node === null || node === undefined) return null
    if (open.has(node)) return complain(path, 'must not contain itself through an alias')
    open.add(node)
    const value = isMap(node)
      ? mapOf(node, path, depth)
      : isSeq(node)
        ? listOf(node, path, depth)
        : leaf(node as Node, path)
    open.delete(node)
    return value
  }

  const follow = (target: unknown, name: string, path: string, depth: number): unknown => {
    aliases += 1
    if (target === undefined) return complain(path, `\`*${name}\` has no anchor before it`)
    if (aliases > MAX_ALIASES)
      return aliases === MAX_ALIASES + 1
        ? complain(path, `must use at most ${MAX_ALIASES} aliases`)
        : undefined
    return walk(target, path, depth)
  }

  const listOf = (node: { items: unknown[]; tag?: string }, path: string, depth: number): unknown => {
    if (!plainTag(node.tag, 'seq')) return complain(path, `must not carry the tag ${node.tag}`)
    return node.items.map((item, index) => walk(item, pointer(path, index), depth + 1))
  }

  const mapOf = (
    node: { items: { key: unknown; value: unknown }[]; tag?: string },
    path: string,
    depth: number,
  ): unknown => {
    if (!plainTag(node.tag, 'map')) return complain(path, `must not carry the tag ${node.tag}`)
    const map: Record<string, unknown> = {}
    for (const pair of node.items) {
      const key = keyOf(pair.key)
      if (key === undefined) complain(path, 'must have only text as keys')
      else if (key === '__proto__') complain(path, 'must not have a key `__proto__`')
      else if (Object.hasOwn(map, key))
        complain(pointer(path, key), `must stand only once: ${quote(key)} is a duplicate key`)
      else map[key] = walk(pair.value, pointer(path, key), depth + 1)
    }
    return map
  }

  const leaf = (node: Node, path: string): unknown => {
    const value: unknown = isScalar(node) ? node.value : undefined
    if (value === null || typeof value === 'string' || typeof value === 'boolean') return value
    if (typeof value !== 'number' || !Number.isFinite(value))
      return complain(path, 'must be a value that JSON has: text, a number, true, false or null')
    if (!exactNumber((node as Scalar).source ?? String(value), value))
      complain(path, `must be quoted: as a number it would be read as ${value}`)
    return value
  }
  return walk(doc.contents, '', 0)
}

function plainTag(tag: string | undefined, kind: 'map' | 'seq'): boolean {
  return tag === undefined || tag === '!' || tag === `tag:yaml.org,2002:${kind}`
}

/** Keys such as `5.5:` or `true:` are meant as the text that is written. */
function keyOf(key: unknown): string | undefined {
  if (!isScalar(key) || key.anchor !== undefined) return undefined
  if (typeof key.value === 'string') return key.value
  return key.source !== undefined && key.source !== '' ? key.source : undefined
}

/** Whether a double holds exactly the decimal that was written: not so for a 20-digit number, or `0x1F`. */
function exactNumber(source: string, value: number): boolean {
  const written = significant(source)
  return written !== undefined && written === significant(String(value))
}

/** Sign, digits without zeros at either end, and the power of ten: equal for equal decimals. */
function significant(text: string): string | undefined {
  const match = /^([-+]?)([0-9]*)\.?([0-9]*)(?:[eE]([-+]?[0-9]+))?$/.exec(text)
  if (match === null) return undefined
  const fraction = match[3] ?? ''
  const digits = `${match[2]}${fraction}`.replace(/^0+/, '')
  if (digits === '') return '0'
  const trimmed = digits.replace(/0+$/, '')
  return `${match[1] === '-' ? '-' : ''}${trimmed}e${Number(match[4] ?? 0) - fraction.length + digits.length - trimmed.length}`
}

/** Where things stand in the text. Maps are indexed once, because a large document can have a thousand complaints. */
function finder(doc: Document.Parsed, targets: ReadonlyMap<unknown, Node>) {
  const indices = new Map<unknown, Map<string | undefined, Pair<unknown, unknown>>>()
  const pairOf = (node: unknown, key: string): Pair<unknown, unknown> | undefined => {
    if (!isMap(node)) return undefined
    // Of keys that stand twice the later is named.
    const index = indices.get(node) ?? new Map(node.items.map((pair) => [keyOf(pair.key), pair]))
    indices.set(node, index)
    return index.get(key)
  }
  /** `place` is the key of the field, or the item; the nearest above where there is none. */
  return (path: string): { readonly place: Node | undefined; readonly scalar: Scalar | undefined } => {
    let node: unknown = doc.contents
    let place: unknown = node
    for (const part of path.split('/').slice(1)) {
      const key = part.replaceAll('~1', '/').replaceAll('~0', '~')
      const parent = isAlias(node) ? targets.get(node) : node
      const pair = pairOf(parent, key)
      node = isSeq(parent) ? parent.items[Number(key)] : pair?.value
      place = pair?.key ?? node ?? place
    }
    const leaf = isAlias(node) ? targets.get(node) : node
    return {
      place: (place ?? undefined) as Node | undefined,
      scalar: isScalar(leaf) ? (leaf as Scalar) : undefined,
    }
  }
}
