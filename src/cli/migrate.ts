/** `sluice migrate`: brings the schema of a store up to date before nodes of a new version start, or makes it. */
import { DatabaseSync } from 'node:sqlite'
import { Command } from 'commander'
import type { Engine } from '../engine.ts'
import { print, printJson } from './output.ts'
import { nameOf, parseStore, type StoreAddress } from './stores.ts'
import { jsonOption, storeOf, storeOption, withEngine } from './target.ts'

export function migrateCommand(): Command {
  return new Command('migrate')
    .description('make the schema of a store, or bring it up to date; a start does the same')
    .addOption(storeOption())
    .addOption(jsonOption())
    .addHelpText(
      'after',
      `
Run it before nodes of a new version start: they find it done. Several at once are safe.

Examples:
  sluice migrate --store postgres://sluice@db.internal/sluice
  sluice migrate --store sqlite:sluice-data/sluice.db`,
    )
    .action(async ({ json }: { json?: true }, self: Command) => {
      const address = parseStore(storeOf(self))
      const version = await withEngine(address, 'create', async (engine) => versionOf(engine, address))
      const store = nameOf(address)
      if (json) return printJson({ store, version })
      print(`The schema of ${store} is at version ${version}`)
    })
}

function versionOf(engine: Engine, address: StoreAddress): number {
  if (address.kind !== 'sqlite') return Number(engine.health().detail.schema)
  const db = new DatabaseSync(address.path, { readOnly: true })
  try {
    return Number(db.prepare('pragma user_version').get()?.user_version)
  } finally {
    db.close()
  }
}
