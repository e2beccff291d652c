from secrets_mcp import spoke

if __name__ == "__main__":
    spoke.main()
