// The rules of the house that a syntax tree can show: who may import whom, what the pure rooms leave alone, and what
// has no place at all. Everything here is a function of paths and texts, so that the test can hand it bad examples.
import { posix } from 'node:path'
import { parseSync, visitorKeys } from 'oxc-parser'

/** A source file: its path from the root of the checkout, with forward slashes, and its text. */
export interface SourceFile {
  readonly path: string
  readonly text: string
}

/** One breach of one rule, where it is and what would be right. */
export interface Complaint {
  readonly rule: 'door' | 'purity' | 'circle' | 'name' | 'test'
  readonly path: string
  readonly line: number
  readonly message: string
}

interface Node {
  readonly type: string
  readonly start: number
  readonly end: number
  readonly [key: string]: unknown
}

interface Import {
  readonly from: string
  readonly typeOnly: boolean
  readonly at: number
}

interface Parsed {
  readonly path: string
  readonly room: string
  readonly root: Node
  readonly imports: readonly Import[]
  readonly lineAt: (offset: number) => number
}

interface Door {
  /** Rooms whose values may be imported. The room itself is always open. */
  readonly values: readonly string[]
  /** Rooms of which only types may be imported, with `import type`. */
  readonly types?: readonly string[]
  /** Rooms above that this room's tests may look into all the same. */
  readonly tests?: readonly string[]
  /** Packages that may be imported: none where it is absent, except what `node` opens. */
  readonly packages?: 'any'
  readonly node?: 'any'
}

const GROUND = ['units', 'texts', 'assert', 'errors']
const OUTSIDE = { packages: 'any', node: 'any' } as const
const EVERYTHING = [
  ...GROUND,
  ...[
    'wire',
    'decision-headers',
    'ledger',
    'kernel',
    'policy',
    'store',
    'coalesce',
    'conformance',
    'memory',
    'sqlite',
    'postgres',
  ],
  ...['engine', 'keyring', 'server', 'gateway', 'sim', 'client'],
]
const BACKEND: Door = { values: ['store', 'coalesce', ...GROUND], types: ['kernel', 'ledger'], ...OUTSIDE }

/**
 * The table of doors. The order is the order of the rooms, lowest first: a test file may look into every room that
 * stands before its own, because proving a room can need more of the house than building it.
 */
const DOORS: Readonly<Record<string, Door>> = {
  units: { values: [] },
  texts: { values: [] },
  assert: { values: [] },
  errors: { values: [] },
  wire: { values: [], packages: 'any' },
  'decision-headers': { values: [], types: ['wire'] },
  client: { values: ['decision-headers'], types: ['wire'], ...OUTSIDE },
  ledger: { values: ['units', 'assert'] },
  // A policy is read more easily as its owner writes it than as it is compiled.
  kernel: { values: ['ledger', 'units', 'texts', 'assert'], tests: ['policy'] },
  policy: { values: ['kernel', 'ledger', ...GROUND], ...OUTSIDE },
  store: { values: [], types: ['kernel', 'ledger', ...GROUND] },
  conformance: { values: ['store', 'kernel', 'ledger', ...GROUND], ...OUTSIDE },
  memory: BACKEND,
  sqlite: BACKEND,
  postgres: BACKEND,
  coalesce: { values: ['store', ...GROUND], types: ['kernel', 'ledger'], ...OUTSIDE },
  engine: { values: ['kernel', 'ledger', 'policy', 'store', ...GROUND], types: ['wire'], node: 'any' },
  sim: {
    values: ['engine', 'kernel', 'ledger', 'policy', 'memory', 'store', ...GROUND],
    types: ['wire'],
    ...OUTSIDE,
  },
  keyring: { values: ['engine', ...GROUND], types: ['wire'], node: 'any' },
  server: {
    values: ['engine', 'keyring', 'wire', 'decision-headers', 'policy', ...GROUND],
    types: ['kernel'],
    ...OUTSIDE,
  },
  gateway: {
    values: ['engine', 'keyring', 'client', 'wire', 'decision-headers', 'policy', ...GROUND],
    types: ['kernel'],
    ...OUTSIDE,
  },
  console: { values: ['client', 'kernel', 'policy', 'sim'], types: ['wire'], packages: 'any' },
  cli: { values: EVERYTHING, ...OUTSIDE },
  index: { values: EVERYTHING, ...OUTSIDE },
}
const HEIGHT: ReadonlyMap<string, number> = new Map(Object.keys(DOORS).map((room, height) => [room, height]))

const PURE = ['kernel', 'ledger']
const IMPURE_GLOBALS: Readonly<Record<string, string>> = {
  ...Object.fromEntries(['Date', 'performance'].map((name) => [name, 'time is an argument'])),
  ...Object.fromEntries(
    ['crypto', 'Crypto'].map((name) => [name, 'sha256 is passed in and chance is an argument']),
  ),
  ...Object.fromEntries(
    ['fetch', 'console', 'Buffer'].map((name) => [name, 'input and output stay outside']),
  ),
  ...Object.fromEntries(
    ['process', 'globalThis', 'global', 'require'].map((name) => [name, 'the environment stays outside']),
  ),
  ...Object.fromEntries(
    ['Promise', 'setTimeout', 'setInterval', 'setImmediate', 'queueMicrotask'].map((name) => [
      name,
      'nothing here waits',
    ]),
  ),
}
const IMPURE_MEMBERS: Readonly<Record<string, string>> = {
  'Math.random': 'chance is an argument',
  'Temporal.Now': 'time is an argument',
}
const IMPURE_METHODS = ['localeCompare', 'toLocaleString', 'toLocaleLowerCase', 'toLocaleUpperCase']

const NO_SUCH_ROOM = /^(utils?|types?|common|helpers?|managers?|services?)$/
const TEST_CALLERS = ['test', 'it', 'describe', 'suite', 't', 'context']

/** True for a file that only the test runner reads. */
export const isTest = (path: string): boolean => path.endsWith('.test.ts')

/** The room that a file belongs to, by the table of doors; a folder the table does not name is a room of its own. */
export function roomOf(path: string): string {
  const [top = '', first = '', second = ''] = path.split('/')
  const bare = (name: string): string => name.replace(/(\.test)?\.ts$/, '')
  if (top !== 'src') return bare(top)
  if (first !== 'store') return bare(first)
  return second === '' ? 'store' : bare(second)
}

/** Holds all files against all rules and returns what is wrong, in order of path and line. */
export function check(files: readonly SourceFile[]): readonly Complaint[] {
  const parsed = files.map(parse)
  const complaints = [
    ...parsed.flatMap(checkDoors),
    ...parsed.filter((file) => PURE.includes(file.room) && !isTest(file.path)).flatMap(checkPurity),
    ...parsed.flatMap(checkNames),
    ...parsed.flatMap(checkTests),
    ...checkCircles(parsed.filter((file) => !isTest(file.path))),
  ]
  return complaints.sort((a, b) => (a.path === b.path ? a.line - b.line : a.path < b.path ? -1 : 1))
}

/** What is long, as sentences. Length is told and never refused: one waterfall may be longer than a leaf. */
export function longOnes(files: readonly SourceFile[]): readonly string[] {
  return files.flatMap((file) => {
    const { root, lineAt, path } = parse(file)
    const found: string[] = []
    const lines = file.text.trimEnd().split('\n').length
    if (lines > 400) found.push(`${path} has ${lines} lines`)
    if (isTest(path)) return found
    walk(root, (node) => {
      if (!/^(Function|ArrowFunction)(Declaration|Expression)?$/.test(node.type)) return
      const length = lineAt(node.end) - lineAt(node.start) + 1
      if (length > 70) found.push(`${path}:${lineAt(node.start)} is a function of ${length} lines`)
    })
    return found
  })
}

function parse(file: SourceFile): Parsed {
  const result = parseSync(file.path, file.text, { sourceType: 'module' })
  const [error] = result.errors
  if (error) throw new Error(`${file.path} cannot be parsed: ${error.message}`)
  const root = result.program as unknown as Node
  const starts = [0, ...[...file.text.matchAll(/\n/g)].map((match) => match.index + 1)]
  return {
    path: file.path,
    room: roomOf(file.path),
    root,
    imports: importsOf(root),
    lineAt: (offset) => starts.findLastIndex((start) => start <= offset) + 1,
  }
}

function walk(
  node: Node,
  visit: (node: Node, parent: Node | null) => void,
  parent: Node | null = null,
): void {
  visit(node, parent)
  for (const key of visitorKeys[node.type] ?? []) {
    for (const child of [node[key]].flat()) if (child) walk(child as Node, visit, node)
  }
}

/** All that a file imports: statements, re-exports, `import()` and the types written as `import('…')`. */
function importsOf(root: Node): readonly Import[] {
  const found: Import[] = []
  walk(root, (node) => {
    // `import { type A }` still loads the file at run time, so only `import type` counts as types alone.
    const typeOnly = node.type === 'TSImportType' || node.importKind === 'type' || node.exportKind === 'type'
    const isImport = /^(Import(Declaration|Expression)|Export(Named|All)Declaration|TSImportType)$/.test(
      node.type,
    )
    const source = node.source as Node | null | undefined
    if (isImport && typeof source?.value === 'string') {
      found.push({ from: source.value, typeOnly, at: node.start })
    }
  })
  return found
}

function checkDoors(file: Parsed): readonly Complaint[] {
  const door = DOORS[file.room]
  // The folders beside the house (test, bench, examples) are guests: they may look into everything.
  if (!door) return []
  return file.imports.flatMap((item) => {
    const refusal = item.from.startsWith('.') ? refuseRoom(file, door, item) : refuseOutside(file, door, item)
    return refusal ? [complain(file, 'door', item.at, refusal)] : []
  })
}

function refuseOutside(file: Parsed, door: Door, item: Import): string | null {
  if (isTest(file.path)) return null
  if (door[item.from.startsWith('node:') ? 'node' : 'packages']) return null
  return `${file.room} imports nothing from outside: not ${item.from}`
}

function refuseRoom(file: Parsed, door: Door, item: Import): string | null {
  const target = posix.join(posix.dirname(file.path), item.from)
  const room = roomOf(target)
  if (isTest(target)) return `nobody imports a test: not ${item.from}`
  if (room === file.room) return null
  if (room === 'cli' || room === 'index') return `nobody imports ${room}`
  if (door.values.includes(room)) return null
  if (isTest(file.path)) {
    if (door.tests?.includes(room)) return null
    // A room without a place in the table is a guest's, such as what tests share in test/.
    const isBefore = (HEIGHT.get(room) ?? -1) < (HEIGHT.get(file.room) ?? 0)
    return isBefore ? null : `${file.room} is built before ${room}, its tests too`
  }
  if (!door.types?.includes(room)) return `${file.room} may not import ${room}`
  return item.typeOnly ? null : `${file.room} may import only types of ${room}: write import type`
}

function checkPurity(file: Parsed): readonly Complaint[] {
  const found: Complaint[] = []
  const refuse = (node: Node, message: string): void => {
    found.push(complain(file, 'purity', node.start, `${message} in ${file.room}/`))
  }
  walk(file.root, (node, parent) => {
    if (node.async === true) refuse(node, 'no async function')
    if (node.type === 'AwaitExpression' || node.await === true) refuse(node, 'no await')
    if (node.type === 'MetaProperty') refuse(node, 'no import.meta: the environment stays outside')
    if (node.type === 'ImportExpression') refuse(node, 'no import(): it is asynchronous')
    if (node.type === 'MemberExpression') checkMember(node, refuse)
    if (node.type === 'VariableDeclarator') checkTakingApart(node, refuse)
    if (node.type === 'Identifier' && !isOnlyAName(node, parent)) {
      const reason = lookUp(IMPURE_GLOBALS, node.name)
      if (reason) refuse(node, `no ${node.name}: ${reason}`)
    }
  })
  return found
}

function checkMember(node: Node, refuse: (node: Node, message: string) => void): void {
  const name = memberName(node)
  const member = `${(node.object as Node).name}.${name}`
  const reason = lookUp(IMPURE_MEMBERS, member)
  if (reason) refuse(node, `no ${member}: ${reason}`)
  if (IMPURE_METHODS.includes(name)) refuse(node, `no ${name}: it depends on the machine's language`)
}

/** Finds `const { random } = Math`, which reaches the same function without naming it in one breath. */
function checkTakingApart(node: Node, refuse: (node: Node, message: string) => void): void {
  const pattern = node.id as Node
  const object = (node.init as Node | null)?.name
  if (pattern.type !== 'ObjectPattern') return
  for (const property of pattern.properties as readonly Node[]) {
    const member = `${object}.${(property.key as Node | undefined)?.name}`
    const reason = lookUp(IMPURE_MEMBERS, member)
    if (reason) refuse(property, `no ${member}: ${reason}`)
  }
}

/** True where an identifier names a member or a property of something else and so refers to no global. */
function isOnlyAName(node: Node, parent: Node | null): boolean {
  if (!parent || parent.computed === true) return false
  if (parent.type === 'MemberExpression') return parent.property === node
  if (parent.type === 'TSQualifiedName') return parent.right === node
  return parent.key === node && parent.shorthand !== true
}

function memberName(node: Node): string {
  const property = node.property as Node
  return String(node.computed === true ? property.value : property.name)
}

function checkNames(file: Parsed): readonly Complaint[] {
  return file.path
    .replace(/(\.test)?\.ts$/, '')
    .split('/')
    .filter((part) => NO_SUCH_ROOM.test(part))
    .map((part) => complain(file, 'name', 0, `"${part}" says nothing: name it by the rule that lives there`))
}

function checkTests(file: Parsed): readonly Complaint[] {
  const found: Complaint[] = []
  walk(file.root, (node) => {
    const callee = node.callee as Node | undefined
    if (node.type !== 'CallExpression' || callee?.type !== 'MemberExpression') return
    const name = memberName(callee)
    const caller = String((callee.object as Node).name)
    if (/^(only|skip|todo)$/.test(name) && TEST_CALLERS.includes(caller)) {
      found.push(
        complain(file, 'test', node.start, `no ${caller}.${name}(): a test runs, or it is not there`),
      )
    }
  })
  return found
}

/** Finds rooms that import each other, directly or around a corner. Types count: they bind two rooms as well. */
function checkCircles(files: readonly Parsed[]): readonly Complaint[] {
  const edges = new Map<string, Map<string, Complaint>>()
  for (const file of files) {
    for (const item of file.imports.filter(({ from }) => from.startsWith('.'))) {
      const to = roomOf(posix.join(posix.dirname(file.path), item.from))
      const out = edges.getOrInsertComputed(file.room, () => new Map())
      if (to !== file.room && !out.has(to)) out.set(to, complain(file, 'circle', item.at, ''))
    }
  }
  return [...edges].flatMap(([from, out]) =>
    [...out].flatMap(([to, complaint]) => {
      const back = path(edges, to, from)
      return back ? [{ ...complaint, message: `a circle of rooms: ${[from, ...back].join(' → ')}` }] : []
    }),
  )
}

/** The shortest way from one room to another along imports, both ends included, or null. */
function path(
  edges: ReadonlyMap<string, ReadonlyMap<string, unknown>>,
  from: string,
  to: string,
): string[] | null {
  const ways = [[from]]
  const seen = new Set([from])
  for (const way of ways) {
    const last = way.at(-1) ?? from
    if (last === to) return way
    for (const next of edges.get(last)?.keys() ?? []) {
      if (!seen.has(next)) ways.push([...way, next])
      seen.add(next)
    }
  }
  return null
}

function complain(file: Parsed, rule: Complaint['rule'], at: number, message: string): Complaint {
  return { rule, path: file.path, line: file.lineAt(at), message }
}

function lookUp(table: Readonly<Record<string, string>>, name: unknown): string | undefined {
  return typeof name === 'string' && Object.hasOwn(table, name) ? table[name] : undefined
}
