/**
 * The reference of the client, made from its sources: what each door of the package exports, with its signature and its docstring.
 * The compiler of this project has no interface for programs; `oxc-parser` reads the sources as they are.
 */
import { readFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { parseSync } from 'oxc-parser'
import { ROOT } from './pack.ts'

/** One thing that a door exports. */
export interface Told {
  readonly name: string
  /** Where it is declared, from the root of the checkout. */
  readonly file: string
  readonly doc: string
  /** Its declaration without bodies. */
  readonly code: string
  /** Types that it names. */
  readonly names: readonly string[]
  /** A function whose answer is left to the compiler. */
  readonly isUntyped: boolean
}
export interface DoorTold {
  /** `@sluice/client/node` */
  readonly name: string
  readonly doc: string
  readonly exports: readonly Told[]
}

interface Node {
  readonly type: string
  readonly start: number
  readonly end: number
  // biome-ignore lint/suspicious/noExplicitAny: a syntax tree is looked into by its node's type.
  readonly [field: string]: any
}
interface Source {
  readonly path: string
  readonly text: string
  readonly body: readonly Node[]
  readonly comments: readonly { readonly type: string; readonly start: number; readonly end: number }[]
}

const WIRE = 'src/wire.ts'
const sources = new Map<string, Source>()

function read(path: string): Source {
  return sources.getOrInsertComputed(path, () => {
    const text = readFileSync(join(ROOT, path), 'utf8')
    const { program, comments, errors } = parseSync(path, text, { sourceType: 'module' })
    if (errors.length > 0) throw new Error(`${path} cannot be parsed: ${errors[0]?.message}`)
    return { path, text, body: program.body as unknown as Node[], comments }
  })
}

/** All doors of the package, in its own order. */
export function doorsTold(): readonly DoorTold[] {
  const { name, exports } = JSON.parse(readFileSync(join(ROOT, 'client/package.json'), 'utf8')) as {
    readonly name: string
    readonly exports: Readonly<Record<string, string | { readonly default: string }>>
  }
  return Object.entries(exports).flatMap(([door, target]) => {
    if (typeof target === 'string') return []
    const file = join('client', `${basename(target.default, '.js')}.ts`)
    const source = read(file)
    const [first] = source.comments
    const doc = first?.start === 0 ? proseOf(source.text.slice(first.start, first.end)) : ''
    return [{ name: join(name, door), doc, exports: exportsOf(source) }]
  })
}

function exportsOf(source: Source): readonly Told[] {
  return source.body.flatMap((node) => {
    if (node.type === 'ExportAllDeclaration') return exportsOf(beside(source, node))
    if (node.type !== 'ExportNamedDeclaration') return []
    if (node.declaration !== null) return declared(source, node)
    const from = node.source === null ? undefined : beside(source, node)
    return (node.specifiers as readonly Node[]).map((one) => resolve(from ?? source, one.local.name))
  })
}

const beside = (source: Source, node: Node): Source => read(join(dirname(source.path), node.source.value))

/** What a name that a file exports, or has imported, stands for. */
function resolve(source: Source, name: string): Told {
  for (const node of source.body) {
    if (node.type === 'ExportNamedDeclaration' && node.declaration !== null) {
      const found = declared(source, node).find((one) => one.name === name)
      if (found !== undefined) return found
    }
    const isFrom =
      node.type === 'ImportDeclaration' || (node.type === 'ExportNamedDeclaration' && node.source)
    const one = isFrom && (node.specifiers as readonly Node[]).find(({ local }) => local.name === name)
    if (one) return resolve(beside(source, node), one.imported?.name ?? one.local.name)
  }
  throw new Error(`${source.path} exports ${name}, which cannot be found`)
}

function declared(source: Source, node: Node): readonly Told[] {
  const { declaration } = node as Node & { readonly declaration: Node }
  const about = { file: source.path, doc: docBefore(source, node.start), names: namesIn(declaration) }
  const told = (id: Node, code: string, isUntyped = false): Told => ({
    ...about,
    name: id.name,
    code: code.trim(),
    isUntyped,
  })
  const slice = (from: number, to: number): string => source.text.slice(from, to)
  switch (declaration.type) {
    case 'FunctionDeclaration':
      return [
        told(
          declaration.id,
          slice(declaration.start, declaration.body.start).replace(/^async /, ''),
          !declaration.returnType,
        ),
      ]
    case 'VariableDeclaration':
      return (declaration.declarations as readonly Node[]).map(({ id, init }) => {
        if (init?.type !== 'ArrowFunctionExpression') return told(id, `const ${slice(id.start, id.end)}`)
        const head = slice(init.start, init.body.start)
          .replace(/\s*=>\s*$/, '')
          .replace(/^async /, '')
        return told(id, `function ${id.name}${head}`, !init.returnType)
      })
    case 'ClassDeclaration':
      return [told(declaration.id, classOf(source, declaration))]
    default:
      return [told(declaration.id, slice(declaration.start, declaration.end))]
  }
}

/** A class as its users see it. */
function classOf({ text, comments }: Source, declaration: Node): string {
  const members = (declaration.body.body as readonly Node[])
    .filter(({ key, accessibility }) => key.type !== 'PrivateIdentifier' && accessibility !== 'private')
    .map((member) => {
      const before = comments.findLast(({ end }) => end <= member.start)
      const isAbout = before !== undefined && text.slice(before.end, member.start).trim() === ''
      const from = isAbout ? before.start : member.start
      const to = member.type === 'MethodDefinition' ? member.value.body.start : member.end
      return `  ${text.slice(from, to).trim()}`
    })
  return [text.slice(declaration.start, declaration.body.start + 1), ...members, '}'].join('\n')
}

function docBefore({ text, comments }: Source, start: number): string {
  const before = comments.findLast(({ end }) => end <= start)
  // What a file begins with is about all of it.
  if (before === undefined || before.start === 0 || text.slice(before.end, start).trim() !== '') return ''
  return proseOf(text.slice(before.start, before.end))
}

/** A docstring as a paragraph; empty for any other comment. */
function proseOf(comment: string): string {
  if (!comment.startsWith('/**')) return ''
  return comment
    .slice(3, -2)
    .split('\n')
    .map((line) => line.replace(/^\s*\* ?/, '').trim())
    .join('\n')
    .trim()
}

/** Types that a declaration names outside of bodies, without its own parameters. */
function namesIn(declaration: Node): readonly string[] {
  const found = new Set<string>()
  const own = new Set<string>()
  function look(value: unknown): void {
    if (Array.isArray(value)) return value.forEach(look)
    if (typeof value !== 'object' || value === null) return
    const node = value as Node
    if (node.type === 'BlockStatement') return
    if (node.type === 'TSTypeParameter') own.add(node.name.name)
    const name = node.type === 'TSTypeReference' ? node.typeName : undefined
    if (name?.type === 'Identifier') found.add(name.name)
    // `wire.Operation`; names of the platform, as `globalThis.AbortSignal`, are not ours.
    if (name?.type === 'TSQualifiedName' && name.left.name === 'wire') found.add(name.right.name)
    for (const [field, inner] of Object.entries(node)) if (field !== 'init') look(inner)
  }
  look(declaration)
  return [...found].filter((name) => !own.has(name))
}

/** The page, below its introduction. */
export function referenceText(doors: readonly DoorTold[]): string {
  const placeOf = new Map<string, string>()
  const parts: string[] = []
  const wire: Told[] = []
  for (const door of doors) {
    parts.push(`## \`${door.name}\``, door.doc)
    const again = new Map<string, string[]>()
    // First what is called, then the types of it.
    for (const one of door.exports.toSorted((a, b) => rank(a) - rank(b))) {
      const key = `${one.file} ${one.name}`
      const place = placeOf.get(key)
      if (place !== undefined) again.getOrInsertComputed(place, () => []).push(`\`${one.name}\``)
      else if (one.file === WIRE) wire.push(one)
      else parts.push(...toldText(one))
      placeOf.set(key, place ?? door.name)
    }
    for (const [place, names] of again) parts.push(`As in \`${place}\`: ${names.join(', ')}.`)
  }
  parts.push('## What crosses HTTP', `${docOf(WIRE)} \`${doors[0]?.name}\` exports them all.`)
  for (const one of wire) parts.push(...toldText(one))
  return `${parts.filter((part) => part !== '').join('\n\n')}\n`
}

const rank = ({ code }: Told): number =>
  ['function', 'const', 'class'].findIndex((word) => code.startsWith(word)) >>> 0

const toldText = ({ name, doc, code }: Told): readonly string[] => [
  `### \`${name}\``,
  doc,
  `\`\`\`ts\n${code}\n\`\`\``,
]

function docOf(path: string): string {
  const { text, comments } = read(path)
  return comments[0]?.start === 0 ? proseOf(text.slice(0, comments[0].end)) : ''
}
