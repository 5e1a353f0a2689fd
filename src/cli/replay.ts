import { Command } from 'commander'
export const replayCommand = (): Command => new Command('replay')
