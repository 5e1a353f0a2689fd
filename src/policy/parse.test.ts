import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { SluiceError } from '../errors.ts'
import { MAX_POLICY_BYTES, parsePolicy, tryParse } from './parse.ts'

const bomb = [
  'a: &a [x,x,x,x,x,x,x,x,x,x]',
  ...'bcdefgh'.split('').map((key, index) => {
    const before = 'abcdefg'[index]
    return `${key}: &${key} [${Array.from({ length: 10 }, () => `*${before}`).join(',')}]`
  }),
].join('\n')

const REFUSED: readonly (readonly [
  what: string,
  text: string,
  path: string,
  message: RegExp,
  line?: number,
])[] = [
  ['a duplicate key', 'a: 1\nb: {}\na: 2', '/a', /duplicate key/, 3],
  ['a duplicate key in JSON', '{"a": 1,\n "a": 2}', '/a', /duplicate key/, 2],
  ['a duplicate key written in two ways', '"a": 1\na: 2', '/a', /duplicate key/, 2],
  ['an alias bomb', bomb, '/d/9/9/9/9', /at most 1000 aliases|too large/],
  ['an alias inside its own anchor', 'a: &a [*a]', '/a/0', /contain itself/, 1],
  ['an alias without an anchor', 'a: *b', '/a', /no anchor before it/, 1],
  ['a key `__proto__`', '__proto__: {}', '', /`__proto__`/],
  ['a key that is a list', '? [1]\n: 2', '', /only text as keys/],
  ['not a number', 'a: .nan', '/a', /value that JSON has/, 1],
  ['infinity', 'a:\n  b: -.inf', '/a/b', /value that JSON has/, 2],
  ['a timestamp', 'a: !!timestamp 2026-01-01', '/a', /value that JSON has/, 1],
  ['binary data', 'a: !!binary aGk=', '/a', /value that JSON has/, 1],
  ['a tag on a list', 'a: !!omap [b: 1]', '/a', /must not carry the tag/, 1],
  ['a set', 'a: !!set {b}', '/a', /must not carry the tag/, 1],
  ['a tag of somebody else', 'a: !point [1]', '', /Unresolved tag/, 1],
  ['a number that a double does not hold', 'a: 12345678901234567890', '/a', /must be quoted/, 1],
  ['a number with digits that are lost', 'a: 0.10000000000000000001', '/a', /must be quoted/, 1],
  ['a hexadecimal number', 'a: 0x10', '/a', /must be quoted/, 1],
  ['two documents', 'a: 1\n---\nb: 2', '', /must be YAML or JSON/],
  ['broken syntax', 'a: [1\nb: 2', '', /must be YAML or JSON/, 2],
  [
    'what is nested too deep',
    '['.repeat(40) + ']'.repeat(40),
    '/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0',
    /deeper than 32/,
  ],
  ['what is nested deeper than the stack', '['.repeat(20_000), '', /deeper than 32/],
  ['more than 1 MiB', `a: ${'x'.repeat(MAX_POLICY_BYTES)}`, '', /at most 1 MiB/],
  ['more than 1 MiB in bytes', `a: ${'ä'.repeat(MAX_POLICY_BYTES / 2)}`, '', /at most 1 MiB/],
]

for (const [what, text, path, message, line] of REFUSED) {
  test(`${what} is refused`, () => {
    const { complaints } = tryParse(text)
    const found = complaints.find((complaint) => message.test(complaint.message))
    assert.ok(found, JSON.stringify(complaints))
    if (what !== 'an alias bomb') assert.equal(found.path, path)
    if (line !== undefined) assert.equal(found.line, line)
    assert.throws(() => parsePolicy(text), { code: 'policy_invalid' })
  })
}

const READ: readonly (readonly [what: string, text: string, document: unknown])[] = [
  ['JSON with tabs', '{\n\t"a": 1,\n\t"b":\t[true, null]\n}', { a: 1, b: [true, null] }],
  ['JSON with escapes', '{"a": "\\ud83d\\ude00\\/\\u0041"}', { a: '😀/A' }],
  [
    'words that YAML 1.1 took for others',
    'a: yes\nb: on\nc: 12:30:00\nd: 2026-01-01',
    { a: 'yes', b: 'on', c: '12:30:00', d: '2026-01-01' },
  ],
  [
    'numbers in several forms',
    'a: 1.50\nb: 1e3\nc: -0.5\nd: +7\ne: 0.000001\nf: 0',
    { a: 1.5, b: 1000, c: -0.5, d: 7, e: 0.000001, f: 0 },
  ],
  ['keys that look like numbers', '5.5: a\ntrue: b', { '5.5': 'a', true: 'b' }],
  [
    'a shared anchor',
    'a: &w { per: 5h }\nb: [*w, *w]',
    { a: { per: '5h' }, b: [{ per: '5h' }, { per: '5h' }] },
  ],
  ['an anchor that is redefined', 'a: &x 1\nb: *x\nc: &x 2\nd: *x', { a: 1, b: 1, c: 2, d: 2 }],
  ['an empty value', 'a:\nb: ~', { a: null, b: null }],
  ['a byte order mark', '\ufeffa: 1', { a: 1 }],
]

for (const [what, text, document] of READ) {
  test(`${what}: read as JSON would carry it`, () => assert.deepEqual(parsePolicy(text).document, document))
}

test('places are those of keys and items, counted from one, through aliases too', () => {
  const { locate, written } = parsePolicy('a:\n  - { b: 1 }\n  - c/d: { e~f: 2.50 }\nx: &x\n  y: 3\nz: *x\n')
  assert.deepEqual(locate('/a'), { line: 1, column: 1 })
  assert.deepEqual(locate('/a/0/b'), { line: 2, column: 7 })
  assert.deepEqual(locate('/a/1/c~1d/e~0f'), { line: 3, column: 12 })
  assert.deepEqual(locate('/a/0/missing'), { line: 2, column: 5 }, 'the object that lacks it')
  assert.deepEqual(locate('/z/y'), { line: 5, column: 3 })
  assert.equal(written('/a/1/c~1d/e~0f'), '2.50')
  assert.equal(written('/a'), undefined)
})

test('no text does anything but parse or complain', () => {
  const piece = fc.oneof(
    fc.constantFrom(
      'a',
      ': ',
      '\n',
      '  ',
      '- ',
      '[',
      ']',
      '{',
      '}',
      '&a ',
      '*a',
      '!',
      '!!map ',
      '? ',
      '"',
      "'",
      '|',
      '>',
      '#',
      '%',
      '---',
      '.nan',
      '1',
      ',',
      '\t',
      '<<',
      '\0',
      '\ud800',
    ),
    fc.string(),
  )
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 30 }), (pieces) => {
      try {
        JSON.stringify(parsePolicy(pieces.join('')).document)
      } catch (error) {
        assert.ok(error instanceof SluiceError && error.code === 'policy_invalid', String(error))
      }
    }),
    { numRuns: 1000 },
  )
})

test('whatever JSON says is read as JSON.parse reads it', () => {
  const plain = (value: unknown): boolean => !JSON.stringify(value).includes('__proto__')
  fc.assert(
    fc.property(
      fc.jsonValue({ maxDepth: 4 }).filter(plain),
      fc.constantFrom(undefined, 2, '\t'),
      (value, indent) => {
        const text = JSON.stringify(value, undefined, indent)
        const { parsed, complaints } = tryParse(text)
        // Numbers of more digits than a double has are JSON's business, not a policy's.
        if (parsed === undefined) assert.match(complaints[0]?.message ?? '', /must be quoted/)
        else assert.deepEqual(parsed.document, JSON.parse(text))
      },
    ),
    { numRuns: 300 },
  )
})
