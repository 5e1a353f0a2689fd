/** All commands, as one tree. `docs/reference/cli.md` lists it, held to it by a test. */
import { readFileSync } from 'node:fs'
import { Command, Help, type Option } from 'commander'
import { accountCommand } from './account.ts'
import { auditCommand } from './audit.ts'
import { backupCheckCommand } from './backup-check.ts'
import { clockCommand } from './clock.ts'
import { eraseCommand } from './erase.ts'
import { explainCommand } from './explain.ts'
import { gatewayCommand } from './gateway.ts'
import { grantCommand } from './grant.ts'
import { keyCommand } from './key.ts'
import { migrateCommand } from './migrate.ts'
import { PACKAGE } from './package.ts'
import { policyCommand } from './policy.ts'
import { replayCommand } from './replay.ts'
import { retainCommand } from './retain.ts'
import { serveCommand } from './serve.ts'

const EXAMPLES = `
Examples:
  sluice serve --demo
  sluice account create acme --plan plus --url http://127.0.0.1:8787
  sluice explain acme req-1
  sluice audit --store sqlite:sluice-data/sluice.db

Exit codes: 0 done; 1 a finding (a disagreement, an invalid policy, a refused call); 2 the command line is wrong;
3 the server or store cannot be reached, is locked, or failed.`

export function createProgram(): Command {
  const program = new Command('sluice')
    .description('A real-time access engine: how much is allowed, and from where?')
    .version(version(), '-V, --version', 'show the version')
    .helpOption('-h, --help', 'show what is taken')
    .addHelpText('after', EXAMPLES)
  const commands = [
    serveCommand(),
    gatewayCommand(),
    migrateCommand(),
    replayCommand(),
    auditCommand(),
    backupCheckCommand(),
    retainCommand(),
    explainCommand(),
    accountCommand(),
    grantCommand(),
    keyCommand(),
    eraseCommand(),
    clockCommand(),
    policyCommand(),
  ]
  for (const command of commands) program.addCommand(command)
  return settle(program)
}

/** Errors are thrown and told by `main.ts`, in one line, whatever command they come from. */
function settle(command: Command): Command {
  command
    .exitOverride()
    .configureOutput({ outputError: () => {} })
    .configureHelp({ showGlobalOptions: false, optionDescription })
    .helpCommand(false)
    .helpOption('-h, --help', 'show what is taken')
  for (const one of command.commands) settle(one)
  return command
}

/** Commander tells defaults and choices, but not which options a command cannot do without. */
function optionDescription(this: Help, option: Option): string {
  const told = Help.prototype.optionDescription.call(this, option)
  return option.mandatory ? `${told} (required)` : told
}

function version(): string {
  return JSON.parse(readFileSync(new URL('package.json', PACKAGE), 'utf8')).version
}
