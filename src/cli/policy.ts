/** `sluice policy`: check what was written, compare, publish, look. */
import { readFileSync } from 'node:fs'
import { Argument, Command, Option } from 'commander'
import type { Policy } from '../kernel/plan.ts'
import type { Complaint } from '../wire.ts'
import { CliError, EXIT } from './failure.ts'
import { type Desk, OPERATOR } from './http.ts'
import { instantText, print, printJson, remark, table } from './output.ts'
import { collect, type Listing, listsPages, tellMore } from './pages.ts'
import { whole } from './reading.ts'
import { actsOnState, jsonOption, withDesk } from './target.ts'

export function policyCommand(): Command {
  return new Command('policy')
    .description('the policy: check, schema, diff, publish, show, versions')
    .addCommand(check())
    .addCommand(schema())
    .addCommand(diff())
    .addCommand(publish())
    .addCommand(show())
    .addCommand(versions())
}

/** A file's text, or standard input where the file is `-`. */
export function readPolicyFile(file: string): string {
  return readFileSync(file === '-' ? 0 : file, 'utf8')
}

function check(): Command {
  return new Command('check')
    .description('check a policy; every complaint has its line, its path and what would be right')
    .argument('<file>', 'YAML or JSON, or - for standard input')
    .addOption(jsonOption())
    .addHelpText(
      'after',
      '\nExit code 1 where it is not valid.\n\nExample:\n  sluice policy check examples/codex-and-sora.yaml',
    )
    .action(async (file: string, { json }: { json?: true }) => {
      const { checkPolicy } = await import('../policy/compile.ts')
      const { complaints, warnings, policy } = checkPolicy(readPolicyFile(file))
      const valid = policy !== undefined
      if (!valid) process.exitCode = EXIT.finding
      if (json) return printJson({ valid, complaints, warnings })
      for (const one of complaints) print(complaintText(file, one))
      for (const one of warnings) print(complaintText(file, one, 'warning: '))
      const warned = warnings.length === 0 ? '' : `, with ${counted(warnings.length, 'warning')}`
      if (valid)
        print(
          `${file} is valid: ${counted(policy.features.size, 'feature')}, ${counted(policy.plans.size, 'plan')}${warned}`,
        )
      else remark(`${file} is not valid: ${counted(complaints.length, 'complaint')}`)
    })
}

const counted = (many: number, what: string): string => `${many} ${what}${many === 1 ? '' : 's'}`

/** `FILE:3:7: /plans/plus/guards/0/rate must be …`: editors and terminals jump to it. */
function complaintText(file: string, { path, message, line, column }: Complaint, mark = ''): string {
  const place = line === undefined ? '' : `:${line}${column === undefined ? '' : `:${column}`}`
  return `${file}${place}: ${mark}${path === '' ? 'the policy' : path} ${message}`
}

function schema(): Command {
  return new Command('schema')
    .description('print the JSON Schema of a policy, with which editors complete it')
    .addHelpText('after', '\nExample:\n  sluice policy schema > sluice.schema.json')
    .action(async () => {
      const { policyJsonSchema } = await import('../policy/schema.ts')
      printJson(policyJsonSchema())
    })
}

function diff(): Command {
  const command = new Command('diff')
    .description('tell what a new policy changes, for whom, and what becomes of live state')
    .argument('<before>', 'a file, - for standard input, or version:N or active of a server or store')
    .argument('<after>', 'likewise')
    .option('--exit-code', 'end with 1 where something changes')
    .addHelpText(
      'after',
      `
Examples:
  sluice policy diff active new.yaml --url http://127.0.0.1:8787
  sluice policy diff old.yaml new.yaml --json`,
    )
    .action(
      async (before: string, after: string, options: { exitCode?: true; json?: true }, self: Command) => {
        const [old, fresh] = [await policyOf(before, self), await policyOf(after, self)]
        const { diffPolicies } = await import('../policy/diff.ts')
        const { changes, lines } = diffPolicies(old, fresh)
        if (options.exitCode && changes.length > 0) process.exitCode = EXIT.finding
        if (options.json) printJson({ changes })
        else print(lines.join('\n'))
      },
    )
  return actsOnState(command)
}

/** Compiles what an argument of `diff` names. */
async function policyOf(named: string, self: Command): Promise<Policy> {
  const [, digits] = /^version:([1-9]\d{0,14})$/.exec(named) ?? []
  const version = digits === undefined ? undefined : Number(digits)
  const stored = named === 'active' || version !== undefined
  const text = stored
    ? (await withDesk(self, 'read', (desk) => desk.policy(version))).text
    : readPolicyFile(named)
  return compiled(named, text)
}

/** Refuses a policy in one line that leads to all complaints. */
export async function compiled(file: string, text: string): Promise<Policy> {
  const { checkPolicy } = await import('../policy/compile.ts')
  const { complaints, policy } = checkPolicy(text)
  if (policy !== undefined) return policy
  const [first] = complaints
  const more = complaints.length > 1 ? ` (and ${complaints.length - 1} more)` : ''
  const told = first === undefined ? file : complaintText(file, first)
  throw new CliError(EXIT.finding, `${told}${more}`, `All complaints: sluice policy check ${file}`)
}

function publish(): Command {
  const command = new Command('publish')
    .description('publish a policy: it is in force with the answer, as a new version')
    .argument('<file>', 'YAML or JSON, or - for standard input')
    .addOption(
      new Option('--if-version <number>', 'only if this version is active; 0 before the first').argParser(
        whole(0, Number.MAX_SAFE_INTEGER),
      ),
    )
    .addHelpText(
      'after',
      '\nExample:\n  sluice policy publish new.yaml --if-version 3 --url http://127.0.0.1:8787',
    )
    .action(async (file: string, options: { ifVersion?: number; json?: true }, self: Command) => {
      const text = readPolicyFile(file)
      await compiled(file, text)
      const view = await withDesk(self, 'create', (desk) =>
        desk.publishPolicy(text, options.ifVersion, OPERATOR),
      )
      if (options.json) return printJson(view)
      for (const one of view.warnings) remark(complaintText(file, one, 'warning: '))
      print(`Version ${view.version} is in force since ${instantText(view.published_at)}`)
    })
  return actsOnState(command)
}

function show(): Command {
  const command = new Command('show')
    .description('print the policy in force, or a version, as it was written')
    .addArgument(
      new Argument('[version]', 'its number (default: the one in force)').argParser(
        whole(1, Number.MAX_SAFE_INTEGER),
      ),
    )
    .addHelpText('after', '\nExample:\n  sluice policy show > active.yaml')
    .action(async (version: number | undefined, { json }: { json?: true }, self: Command) => {
      const view = await withDesk(self, 'read', (desk) => desk.policy(version))
      if (json) printJson(view)
      else print(view.text.trimEnd())
    })
  return actsOnState(command)
}

function versions(): Command {
  const command = new Command('versions')
    .description('list the versions of the policy')
    .addHelpText('after', '\nExample:\n  sluice policy versions')
    .action(async (options: Listing & { json?: true }, self: Command) => {
      const found = await withDesk(self, 'read', (desk: Desk) =>
        collect(options, (page) => desk.policyVersions(page)),
      )
      if (options.json) return printJson(found)
      print(
        table(
          [{ title: 'VERSION', align: 'right' }, 'PUBLISHED', 'BY', 'ACTIVE'],
          found.items.map((one) => [
            one.version,
            instantText(one.published_at),
            one.actor,
            one.active ? 'active' : '',
          ]),
        ),
      )
      tellMore(found)
    })
  return actsOnState(listsPages(command))
}
