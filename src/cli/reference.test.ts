/** `docs/reference/cli.md` tells every command and flag as the code has them. `SLUICE_WRITE=1` writes its generated part. */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import type { Command, Option } from 'commander'
import { EXIT } from './failure.ts'
import { createProgram } from './program.ts'

const PAGE = join(import.meta.dirname, '../../docs/reference/cli.md')
const MARK = '<!-- From here on the page is held to the code, word for word. -->\n'
/** The flags of every command that acts on state are told once. */
const COMMON = ['--url', '--key', '--store', '--json']

test('the reference page has every command and every flag, in the words of --help', () => {
  const [before = '', found = ''] = readFileSync(PAGE, 'utf8').split(MARK)
  const wanted = `\n${commandsText(createProgram())}`
  if (process.env.SLUICE_WRITE !== undefined) writeFileSync(PAGE, `${before}${MARK}${wanted}`)
  else assert.equal(found, wanted, 'run SLUICE_WRITE=1 node --test src/cli/reference.test.ts')
})

test('the reference page has every exit code', () => {
  const page = readFileSync(PAGE, 'utf8')
  const told = [...page.matchAll(/^\| `(\d)` \|/gm)].map(([, code]) => Number(code))
  assert.deepEqual(told, Object.values(EXIT))
})

test('every command has an example that names it', () => {
  for (const { name, command } of leaves(createProgram(), '')) {
    const help: string[] = []
    command.configureOutput({ writeOut: (text) => void help.push(text) }).outputHelp()
    assert.match(help.join(''), new RegExp(`Examples?:\\n  .*${name}`), `${name} has no example`)
  }
})

interface Leaf {
  readonly name: string
  readonly command: Command
}

function leaves(command: Command, parent: string): readonly Leaf[] {
  const name = `${parent} ${command.name()}`.trim()
  return command.commands.length === 0
    ? [{ name, command }]
    : command.commands.flatMap((one) => leaves(one, name))
}

function commandsText(program: Command): string {
  return leaves(program, '')
    .map(({ name, command }) => {
      const options = command.options.filter(({ hidden }) => !hidden)
      const common = COMMON.every((long) => options.some((option) => option.long === long))
      const own = options.filter((option) => !common || !COMMON.includes(option.long ?? ''))
      const parts = [`## \`${name}${argumentsText(command)}\``, sentence(command.description())]
      if (common) parts.push('Takes the [common flags](#common-flags).')
      if (own.length > 0) parts.push(tableText(command, own))
      return parts.join('\n\n')
    })
    .join('\n\n')
    .concat('\n')
}

function argumentsText(command: Command): string {
  return command.registeredArguments
    .map((argument) => {
      const name = `${argument.name()}${argument.variadic ? '...' : ''}`
      return argument.required ? ` <${name}>` : ` [${name}]`
    })
    .join('')
}

function tableText(command: Command, options: readonly Option[]): string {
  const help = command.createHelp()
  const rows = options.map(
    (option) => `| \`${option.flags}\` | ${help.optionDescription(option).replaceAll('|', '\\|')} |`,
  )
  return ['| flag | what it does |', '| --- | --- |', ...rows].join('\n')
}

const sentence = (text: string): string => `${text.charAt(0).toUpperCase()}${text.slice(1)}.`
